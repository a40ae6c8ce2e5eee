"""A listening socket with a thread for each connection, which ends without waiting for its clients."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from src.testing.fake_hub.answers import Answer, Refused, as_json
from src.testing.fake_hub.faults import Faults
from src.testing.fake_hub.requests import ReceivedRequest, RequestLog
from src.testing.fake_hub.routes import Asked
from src.testing.fake_hub.sending import CutError, Sender

_SEND_BUFFER = 128 * 1024  # bytes; small, so that what counts as sent is hardly more than what arrives


class Listener:
    """Answers requests at one address from its construction until `end`."""

    def __init__(
        self, host: str, port: int, answer: Callable[[Asked], Answer], log: RequestLog, faults: Faults
    ) -> None:
        self._server = _Server((host, port), answer, log, faults)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"fake-hub-{self.port}", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Closes every connection and joins the threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.drop()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that `server_close` joins them
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], answer: Callable[[Asked], Answer], log: RequestLog, faults: Faults
    ) -> None:
        self.answer, self.log, self.faults = answer, log, faults
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        with self._guard:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        """Ends the connections under their handlers."""
        self.stopping.set()
        with self._guard:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients leave, and connections are cut on demand."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with suppress(OSError):  # the client left
            super().handle()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked.parse(self.command, self.path, dict(self.headers.items()), body)
        request = ReceivedRequest(self.command, asked.path, dict(asked.headers))
        self.server.log.add(request)
        try:
            Sender(self, request, self.server.faults, self.server.stopping).send(self._answer_to(asked))
        except CutError:
            self.close_connection = True

    def _answer_to(self, asked: Asked) -> Answer:
        refusal = self.server.faults.take_refusal(asked.path)
        if refusal:
            headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            return as_json({"error": "The service is not available at the moment"}, refusal.status, headers)
        try:
            return self.server.answer(asked)
        except Refused as exc:
            return exc.answer
        except Exception as exc:
            return as_json({"error": f"the fake hub failed: {exc!r}"}, 500)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the log is `FakeHub.requests`."""
