"""One connection of a client: requests in, answers out, and what goes wrong between them."""

import socket
import struct
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from src.testing.fake_lakefs.app import App
from src.testing.fake_lakefs.asks import Ask
from src.testing.fake_lakefs.bodies import Body, ClientLeftError
from src.testing.fake_lakefs.faults import Fault, Faults, Kind
from src.testing.fake_lakefs.wire import Answer, refusal

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
BODILESS = (204, 304)


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it arrived, without its credentials; `status` is None where the client got no answer."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    operation: str | None
    status: int | None
    bytes_received: int


@dataclass(slots=True)
class Service:
    """What every connection needs: the application, its faults, the log, and the wish to end."""

    app: App
    faults: Faults
    requests: list[ReceivedRequest] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)


class Connection(BaseHTTPRequestHandler):
    """Serves one connection until either side ends it; its making does it all, as the base class has it."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: socket.socket, service: Service) -> None:
        self._service = service
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(connection, connection.getpeername(), None)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the base class from writing to standard error."""

    def handle(self) -> None:
        """Answers requests; a client that is gone is the end of it."""
        try:
            super().handle()
        except (ClientLeftError, OSError):
            self.close_connection = True

    def answer(self) -> None:
        """Answers the request whose line and headers were just read."""
        ask = Ask.of(self.command, self.path, self.headers, Body(self.rfile, self.headers))
        route = self._service.app.route(ask)
        operation = route.operation if route else None
        faults = self._service.faults.take(operation)
        if cut := faults.get("cut_request"):
            ask.body = Body(self.rfile, self.headers, cut.after_bytes)
        try:
            answer = self._with_faults(ask, faults) or self._service.app.answer(ask, route)
            ask.body.drain()
        except ClientLeftError:
            self._keep(ask, operation, None)
            self._reset()
            raise
        lost = "lose_answer" in faults
        self._keep(ask, operation, None if lost else answer.status)
        self._send(answer, faults.get("cut_answer"), lost)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

    def _with_faults(self, ask: Ask, faults: Mapping[Kind, Fault]) -> Answer | None:
        if delay := faults.get("delay"):
            self._service.ending.wait(delay.seconds)
        if "refuse" not in faults:
            return None
        return refusal(faults["refuse"].status, faults["refuse"].message)

    def _keep(self, ask: Ask, operation: str | None, status: int | None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "authorization"}
        path = unquote(ask.path)
        kept = ReceivedRequest(ask.method, path, ask.query, headers, operation, status, ask.body.received)
        self._service.requests.append(kept)

    def _send(self, answer: Answer, cut: Fault | None, lost: bool) -> None:
        try:
            if not lost:
                self._send_answer(answer, cut)
        finally:
            if answer.part:
                answer.part.file.close()
        if lost or cut:
            raise ClientLeftError

    def _send_answer(self, answer: Answer, cut: Fault | None) -> None:
        most = cut.after_bytes if cut else None
        body = answer.body[:most] if self.command != "HEAD" else b""
        # Head and body leave together: two small packets would be two turns of the client's.
        self.wfile.write(self._head(answer) + body)
        if answer.part and (count := min(answer.part.count, answer.part.count if most is None else most)):
            self.connection.sendfile(answer.part.file, answer.part.start, count)

    def _head(self, answer: Answer) -> bytes:
        headers = {"date": self.date_time_string(), "x-request-id": str(uuid.uuid4()), **answer.headers}
        length = answer.part.count if answer.part else answer.length
        if length is not None or answer.status not in BODILESS:
            headers["content-length"] = str(len(answer.body) if length is None else length)
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _reset(self) -> None:
        """Ends the connection the hard way: a client that still sends sees a reset, not an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
