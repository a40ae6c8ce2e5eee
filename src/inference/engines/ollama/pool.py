"""The connections to one server: kept, bounded, and given back by whoever has used one."""

import asyncio
import ssl
from collections import deque
from types import TracebackType
from typing import Self

import httpx

from src.inference.engines.ollama.connection import Connection

# A connection that cannot be made should be told at once; an answer may take as long as it may.
CONNECT_SECONDS = 5.0
MOST = 256
MOST_KEPT = 32
KEPT_SECONDS = 30.0
"""Something between here and the server may forget an idle connection without a word."""

_CLOSING_SECONDS = 1.0
_LINGER_SECONDS = 1.0


class ConnectionPool:
    """Lends connections on one event loop; the most recently used first. `tls` is None for plain HTTP."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, most: int = MOST) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(most)
        self._kept: deque[Connection] = deque()
        self._lent: set[Connection] = set()
        self._closed = False

    async def take(self, seconds: float, *, fresh: bool = False) -> Connection:
        """Lends a connection, a new one where `fresh`, within `seconds`; raises `httpx.TransportError`."""
        await self._turn(seconds)
        try:
            connection = None if fresh else self._newest()
            if connection is None:
                connection = await self._opened(min(seconds, CONNECT_SECONDS))
        except BaseException:
            self._room.release()
            raise
        self._lent.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Takes a connection back; one whose exchange was not finished is closed at once."""
        self._lent.discard(connection)
        self._room.release()
        if self._closed or not connection.reusable or len(self._kept) >= MOST_KEPT:
            connection.abort()
        else:
            connection.kept_at = self._loop.time()
            self._kept.append(connection)
        self._drop_old()

    async def close(self) -> None:
        """Closes all connections, those that are lent too."""
        self._closed = True
        connections = [*self._kept, *self._lent]
        self._kept.clear()
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.wait([connection.gone for connection in connections], timeout=_CLOSING_SECONDS)

    async def _turn(self, seconds: float) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(seconds):
                await self._room.acquire()
        except TimeoutError as exc:
            raise httpx.PoolTimeout(f"no connection became free for {seconds:g} s") from exc

    def _newest(self) -> Connection | None:
        self._drop_old()
        while self._kept:
            connection = self._kept.pop()
            if not connection.closed:
                return connection
        return None

    def _drop_old(self) -> None:
        oldest = self._loop.time() - KEPT_SECONDS
        while self._kept and (self._kept[0].kept_at < oldest or self._kept[0].closed):
            self._kept.popleft().abort()

    async def _opened(self, seconds: float) -> Connection:
        if self._closed:
            raise httpx.ConnectError("the engine was closed")
        try:
            async with asyncio.timeout(seconds):
                opened = await self._loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError as exc:
            raise httpx.ConnectTimeout(f"no connection within {seconds:g} s") from exc
        except (OSError, UnicodeError) as exc:
            raise httpx.ConnectError(str(exc)) from exc
        return opened[1]


class Exchange:
    """A request and its answer: `async with` sends it; leaving before the answer is whole closes the connection.

    `seconds` is how long the server may be silent. A kept connection that turns out to be closed is replaced, once.
    """

    status = 0

    def __init__(self, pool: ConnectionPool, head: bytes, body: bytes, seconds: float) -> None:
        self._pool, self._head, self._body, self._seconds = pool, head, body, seconds
        self._connection: Connection
        self._rest = b""

    async def __aenter__(self) -> Self:
        if not await self._asked(await self._pool.take(self._seconds)):
            await self._asked(await self._pool.take(self._seconds, fresh=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.give_back(self._connection)

    async def lines(self) -> list[bytes]:
        """Returns the lines that have come since the last time, those that are empty left out; [] at the end."""
        while piece := await self._connection.read(self._seconds):
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if lines := [line for line in lines if line]:
                return lines
        last, self._rest = self._rest.strip(), b""
        return [last] if last else []

    async def body(self) -> bytes:
        """Returns the body, whole."""
        return await self._connection.body(self._seconds)

    async def finish(self) -> None:
        """Waits a moment for the end of an answer of which nothing more is wanted: its connection can be kept then."""
        try:
            await self._connection.body(min(_LINGER_SECONDS, self._seconds))
        except httpx.TransportError:
            pass  # what was wanted is here

    async def _asked(self, connection: Connection) -> bool:
        """Sends the request; False where the connection turns out to have been closed before."""
        try:
            connection.send(self._head, self._body)
            self.status = await connection.status(self._seconds)
        except httpx.TransportError:
            self._pool.give_back(connection)
            if connection.stale:
                return False
            raise
        except BaseException:
            self._pool.give_back(connection)
            raise
        self._connection = connection
        return True
