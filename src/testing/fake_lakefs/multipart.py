"""Multipart bodies, read as they arrive: a part is handed on without ever being whole in memory."""

from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser

from src.testing.fake_lakefs.bodies import Body
from src.testing.fake_lakefs.errors import ApiError


class Multipart:
    """The parts of a body, one after another."""

    def __init__(self, body: Body, boundary: str) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = b"\r\n"

    def next_part(self) -> Message | None:
        """Goes to the next part; returns its headers, None after the last one."""
        for _ in self.content():
            pass
        if self._until(2) == b"--":
            return None
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        return BytesHeaderParser().parsebytes(self._until(end + 4))

    def content(self) -> Iterator[bytes]:
        """Yields the rest of the part that we are in."""
        keep = len(self._delimiter) - 1
        while (end := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > keep:
                yield self._until(len(self._buffer) - keep)
            self._more()
        yield self._until(end)
        self._until(len(self._delimiter))

    def _until(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        piece = self._body.read()
        if not piece:
            raise ApiError(500, "multipart: NextPart: EOF")
        self._buffer += piece


def part_named(parts: Multipart, name: str) -> Message | None:
    """Goes to the first part under a form name; returns its headers, None where there is none."""
    while (headers := parts.next_part()) is not None:
        if headers.get_param("name", header="content-disposition") == name:
            return headers
    return None
