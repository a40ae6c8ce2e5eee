"""One HTTP/1.1 connection: it sends a request, hands out the answer as it comes, and knows whether it can be kept.

httpx costs about a millisecond of CPU for each call; this costs a twentieth of it. What goes wrong is raised in
httpx's words, so that one table translates both.
"""

import asyncio
from typing import Any

import httptools
import httpx

STALE_SECONDS = 1.0
"""A kept connection that ends unheard so soon was closed before the request came; later, the request may be why."""

MOST_UNREAD = 256 * 1024
_JOINED = 64 * 1024
_FRAMING = (b"content-length", b"transfer-encoding")


class Connection(asyncio.Protocol):
    """Carries one exchange after another: `send`, then `status`, then `body` or, piece by piece, `read`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.kept_at = 0.0
        self._exchanges = 0
        self._begin()
        self._complete = True

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._parts: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._heard = self._complete = self._framed = self._keeps = False
        self._failure: httpx.TransportError | None = None

    # ------------------------------------------------------------------ one exchange

    def send(self, head: bytes, body: bytes) -> None:
        """Sends a request."""
        self._begin()
        self._exchanges += 1
        self._sent_at = self._loop.time()
        if len(body) <= _JOINED:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def status(self, seconds: float) -> int:
        """Returns the answer's status; like all that waits, it raises `httpx.TransportError`."""
        while not self._status:
            await self._news(seconds)
        return self._status

    async def read(self, seconds: float) -> bytes:
        """Returns what has come of the body since the last time, b"" at its end."""
        while not self._parts:
            if self._complete:
                return b""
            await self._news(seconds)
        return self._taken()

    async def body(self, seconds: float) -> bytes:
        """Returns the rest of the body."""
        while not self._complete:
            await self._news(seconds)
        return self._taken()

    @property
    def reusable(self) -> bool:
        """Whether the last exchange left the connection as good as new."""
        whole = self._complete and self._keeps and not self._transport.get_write_buffer_size()
        return whole and not self.closed

    @property
    def stale(self) -> bool:
        """Whether the server had closed the connection before it saw the request."""
        unheard = self._failure is not None and not self._heard
        return unheard and self._exchanges > 1 and self._loop.time() - self._sent_at < STALE_SECONDS

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport.is_closing()

    def abort(self) -> None:
        """Closes at once; a server that was busy with the request stops."""
        self._transport.abort()

    def _taken(self) -> bytes:
        parts, self._parts, self._unread = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _news(self, seconds: float) -> None:
        if self._failure is not None:
            raise self._failure
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, _late, waiter, seconds)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        if self._complete:
            # Nobody asked: whatever this is, the next answer would be read out of step.
            self._transport.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._complete:
                self._failure = httpx.RemoteProtocolError(f"its answer is no HTTP: {exc}")
            self._transport.abort()
        if self._unread > MOST_UNREAD and (self._waiter is None or self._waiter.done()) and not self._complete:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._status and not self._framed and exc is None:
            self._complete = True  # a body without a length ends with its connection
        if not self._complete and self._failure is None:
            self._failure = httpx.RemoteProtocolError(
                f"the server closed it before {'the answer was complete' if self._heard else 'it answered'}"
                + (f" ({exc})" if exc else "")
            )
        if not self.gone.done():
            self.gone.set_result(None)
        self._wake()

    # ------------------------------------------------------------------ called by the parser

    def on_message_begin(self) -> None:
        if self._complete:
            self._keeps = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # 1xx comes before the answer.
        if status >= 200 and not self._complete:
            self._status = status
            self._keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)
            self._unread += len(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True


def _late(waiter: "asyncio.Future[None]", seconds: float) -> None:
    if not waiter.done():
        waiter.set_exception(httpx.ReadTimeout(f"nothing came for {seconds:g} s"))
