"""The fake lakeFS server: a socket, threads behind it, and state that outlives a restart."""

import threading
from types import TracebackType
from typing import Self

from src.testing.fake_lakefs.app import App
from src.testing.fake_lakefs.connection import ReceivedRequest, Service
from src.testing.fake_lakefs.faults import Fault, Faults
from src.testing.fake_lakefs.refs import resolve
from src.testing.fake_lakefs.serving import Serving
from src.testing.fake_lakefs.state import State

ACCESS_KEY_ID = "AKIAFAKELAKEFSEXAMPLE"
SECRET_ACCESS_KEY = "fake-lakefs-secret"


class FakeLakefs:
    """A lakeFS server on a real socket, for as long as the `with` block lasts.

    It starts without repositories, for one user with these credentials. `requests` keeps every request
    received, in the order of their answers. A deleted repository is still seen for `deletion_seconds`, as
    lakeFS's own cache shows it. Operations have the names of the client's methods (`upload_object`, `commit`).
    """

    def __init__(
        self,
        *,
        access_key_id: str = ACCESS_KEY_ID,
        secret_access_key: str = SECRET_ACCESS_KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        deletion_seconds: float = 1.0,
    ) -> None:
        self.access_key_id, self.secret_access_key = access_key_id, secret_access_key
        self._host, self._port = host, port
        self._state = State(deletion_seconds)
        self._app = App(self._state, access_key_id, secret_access_key)
        self._faults = Faults()
        self.requests: list[ReceivedRequest] = []
        self._serving: Serving | None = None

    @property
    def url(self) -> str:
        """The address, without a slash at the end; the port stays the same over a restart."""
        return f"http://{self._host}:{self._port}"

    def start(self) -> Self:
        """Listens; returns once connections are accepted."""
        if self._serving:
            raise RuntimeError("the fake lakeFS runs already")
        service = Service(self._app, self._faults, self.requests, threading.Event())
        self._serving = Serving(self._host, self._port, service)
        self._port = self._serving.port
        return self

    def stop(self) -> None:
        """Drops every connection and refuses new ones; what is stored stays stored, until `start`."""
        if self._serving:
            self._serving.end()
        self._serving = None

    def close(self) -> None:
        """Stops for good: the stored bytes are deleted."""
        self.stop()
        self._state.blobs.close()

    def fail(
        self,
        operation: str | None = None,
        *,
        status: int = 503,
        times: int | None = 1,
        message: str = "failed on demand",
    ) -> None:
        """Answers the next requests of an operation with an error; `times` None: all, until `clear_faults`."""
        self._add(Fault("refuse", operation, times, status=status, message=message))

    def cut_request(self, operation: str = "upload_object", *, after_bytes: int = 0, times: int | None = 1) -> None:
        """Drops the connection once so many bytes of the body have arrived; nothing of it is stored."""
        self._add(Fault("cut_request", operation, times, after_bytes=after_bytes))

    def cut_answer(self, operation: str = "get_object", *, after_bytes: int = 0, times: int | None = 1) -> None:
        """Drops the connection after the headers and so many bytes of the answer."""
        self._add(Fault("cut_answer", operation, times, after_bytes=after_bytes))

    def lose_answer(self, operation: str, *, times: int | None = 1) -> None:
        """Does what is asked and drops the connection instead of saying so."""
        self._add(Fault("lose_answer", operation, times))

    def delay(self, seconds: float, operation: str | None = None, *, times: int | None = 1) -> None:
        """Waits before doing what is asked; stopping the server ends the wait."""
        self._add(Fault("delay", operation, times, seconds=seconds))

    def clear_faults(self) -> None:
        """Lets nothing go wrong any more."""
        self._faults.clear()

    def corrupt(self, repository: str, path: str, *, ref: str | None = None, offset: int | None = None) -> None:
        """Flips one stored byte of an object, in the middle by default, and tells nobody.

        `ref` is the default branch where it is not given. Raises `ApiError` where there is no such object,
        `ValueError` where it has no such byte.
        """
        with self._state.lock:
            known = self._state.repository(repository)
            entry = resolve(known, ref or known.default_branch).entry(path)
            at = entry.size // 2 if offset is None else offset
            if not 0 <= at < entry.size:
                raise ValueError(f"{path} has {entry.size} bytes, none at {at}")
            self._state.blobs.flip(entry.address, at)

    def _add(self, fault: Fault) -> None:
        if fault.operation is not None and fault.operation not in self._app.operations:
            known = ", ".join(sorted(self._app.operations))
            raise ValueError(f"there is no operation {fault.operation!r}; there are: {known}")
        self._faults.add(fault)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
