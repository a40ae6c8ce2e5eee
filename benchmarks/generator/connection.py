"""One connection to a server: sends a request, notices when its answer is whole, and when its first piece is there.

It speaks just enough HTTP/1.1 to cost little beside the servers that it measures.
"""

import asyncio
import re
import time
from collections.abc import Callable

Answered = Callable[["Connection", float], None]


class Connection(asyncio.Protocol):
    """Calls `answered(connection, now)` for each whole answer.

    `raw` is that answer, head and body; `sent` and `first` say when the request left and when `first_piece`
    was first found in the answer (None: never).
    """

    def __init__(self, answered: Answered, first_piece: re.Pattern[bytes] | None = None) -> None:
        self._answered = answered
        self._first_piece = first_piece
        self._transport: asyncio.WriteTransport | None = None
        self._body_at = 0
        self._length: int | None = None
        self.raw = b""
        self.sent = 0.0
        self.first: float | None = None
        self.request = -1
        self.lost: Exception | None = None

    @property
    def is_good(self) -> bool:
        """Whether the status is 200."""
        return self.raw.startswith(b"HTTP/1.1 200")

    @property
    def body(self) -> bytes:
        """The answer's body, put together from its chunks where it came in chunks."""
        body = self.raw[self._body_at :]
        return body if self._length is not None else _from_chunks(body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, number: int, request: bytes) -> None:
        """Sends a request; `number` is kept as `request` until the next one."""
        assert self._transport is not None
        self.raw, self._body_at, self._length = b"", 0, None
        self.request, self.first = number, None
        self.sent = time.perf_counter()
        self._transport.write(request)

    def leave(self) -> None:
        """Closes the connection; nobody hears of its end."""
        self.request = -1
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self.raw = self.raw + data if self.raw else data
        if self._first_piece is not None and self.first is None and self._first_piece.search(self.raw):
            self.first = time.perf_counter()
        if self._is_whole():
            self._answered(self, time.perf_counter())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.lost = exc or ConnectionError("the server closed the connection")
        if self.request >= 0:
            self._answered(self, time.perf_counter())

    def _is_whole(self) -> bool:
        raw = self.raw
        if not self._body_at:
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._body_at = end + 4
            head = raw[:end].lower()
            place = head.find(b"content-length:")
            if place >= 0:
                self._length = int(head[place + 15 :].split(b"\r\n", 1)[0])
        if self._length is not None:
            return len(raw) >= self._body_at + self._length
        return raw.endswith(b"\r\n0\r\n\r\n")


def _from_chunks(body: bytes) -> bytes:
    parts, place = list[bytes](), 0
    while True:
        end = body.find(b"\r\n", place)
        size = int(body[place:end].split(b";")[0] or b"0", 16) if end > 0 else 0
        if not size:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        place = end + 4 + size
