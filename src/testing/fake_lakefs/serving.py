"""A thread that accepts connections, and one for each of them."""

import socket
import threading
from contextlib import suppress

from src.testing.fake_lakefs.connection import Connection, Service

JOIN_SECONDS = 10.0


class Serving:
    """Listens from its construction on until `end`, which drops every connection."""

    def __init__(self, host: str, port: int, service: Service) -> None:
        self._service = service
        self._listener = socket.create_server((host, port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._accepting = threading.Thread(target=self._accept, name=f"fake-lakefs-{self.port}", daemon=True)
        self._accepting.start()

    def end(self) -> None:
        """Stops listening, drops the connections and joins every thread."""
        self._service.ending.set()
        # Linux wakes a thread in accept by the first of these, BSD by the second.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(JOIN_SECONDS)
        with self._lock:
            still_open = dict(self._open)
        for connection in still_open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in still_open.values():
            thread.join(JOIN_SECONDS)

    def _accept(self) -> None:
        while not self._service.ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            Connection(connection, self._service)
        except OSError:
            pass
        finally:
            with self._lock:
                del self._open[connection]
            connection.close()
