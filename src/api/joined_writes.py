"""uvicorn's HTTP protocol, with an answer's head and the first part of its body in one write.

uvicorn writes them apart, and each write is a call of the kernel that wakes whoever waits for the answer:
one of them for half an answer. Seen in uvicorn 0.54, `protocols/http/httptools_impl.py`.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningProtocol(HttpToolsProtocol):
    """Gives uvicorn a transport that holds a head back until the body's first part is there."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins a connection."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """Ends an answer; one without a body has said nothing yet."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()


class JoiningTransport:
    """A transport that holds back the head of an answer whose length is known: its body follows at once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._head: bytes | None = None
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        """Writes, or holds back a head until something follows it."""
        if self._head is not None:
            data, self._head = self._head + data, None
        elif data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: " in data:
            self._head = data
            return
        self._write(data)

    def flush(self) -> None:
        """Writes what is held back."""
        if self._head is not None:
            head, self._head = self._head, None
            self._write(head)

    def close(self) -> None:
        """Closes once everything is written."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
