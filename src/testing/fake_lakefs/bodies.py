"""The body of a request, read from the connection piece by piece."""

from collections.abc import Iterator
from email.message import Message
from io import BufferedIOBase

PIECE = 1 << 20


class ClientLeftError(Exception):
    """The connection ended, was cut, or makes no sense, before the request was complete."""


class Body:
    """What the client sends after its headers; `received` counts it, `limit` cuts the connection there."""

    def __init__(self, stream: BufferedIOBase, headers: Message, limit: int | None = None) -> None:
        self._stream = stream
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._left = 0 if self._chunked else _number(headers.get("content-length") or "0", 10)
        self._ended = False
        self._limit = limit
        self._ahead: bytes | None = None
        self.received = 0

    def pieces(self) -> Iterator[bytes]:
        """Yields what arrives, at most a mebibyte at once; raises `ClientLeftError` when it breaks off."""
        while piece := self.read():
            yield piece

    def prefetch(self) -> None:
        """Reads all of it now, so that nobody waits for a slow client under a lock."""
        self._ahead = b"".join(self.pieces())

    def whole(self) -> bytes:
        """Returns all of it."""
        return b"".join(self.pieces()) if self._ahead is None else self._ahead

    def drain(self) -> None:
        """Reads what is left, so that the next request on this connection begins where it should."""
        for _ in self.pieces():
            pass

    def read(self) -> bytes:
        """Returns the next piece, empty at the end."""
        if self._limit is not None and self.received >= self._limit:
            raise ClientLeftError
        if self._chunked and not self._left and not self._ended:
            self._left = self._next_chunk()
        if not self._left:
            return b""
        wanted = min(self._left, PIECE if self._limit is None else self._limit - self.received, PIECE)
        piece = self._stream.read(wanted)
        self.received += len(piece)
        self._left -= len(piece)
        if len(piece) < wanted:
            raise ClientLeftError
        if self._chunked and not self._left:
            self._line()
        return piece

    def _next_chunk(self) -> int:
        size = _number(self._line().decode("latin-1").partition(";")[0], 16)
        if size == 0:
            self._ended = True
            while self._line().strip():
                pass
        return size

    def _line(self) -> bytes:
        line = self._stream.readline(1 << 16)
        if not line.endswith(b"\n"):
            raise ClientLeftError
        return line


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as exc:
        raise ClientLeftError(text) from exc
