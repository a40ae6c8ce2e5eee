"""Results in a Redis that several services share. One that is away or slow costs its callers next to nothing.

The first failure takes it out of use. From then on nobody asks it, until a look at it, which no request waits for,
finds it well again.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from src.core.threads import in_thread
from src.inference.types import JsonObject

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

NAMESPACE = "aiml:results:1:"
"""What our keys begin with; the number is that of the form of the values."""
PATIENCE = 0.25
"""Seconds that one answer of Redis may take."""
REST = 2.0
"""Seconds between looks at a Redis that is away."""
_CLEAR_PATIENCE = 30.0
_CONNECTIONS = 16
_MOST_WRITES = 256
_SCANNED = 1000

_abandoned: list[Any] = []


class RedisResults:
    """Keeps values in Redis for `ttl` seconds, of `max_bytes` each at most.

    It may be used from one event loop after another. Nothing here raises for what Redis does.
    """

    def __init__(self, url: str, max_bytes: int, ttl: float) -> None:
        self._url = url
        self._max_bytes = max_bytes
        self._ttl_ms = max(1, round(ttl * 1000))
        self._connected: tuple[asyncio.AbstractEventLoop, Redis] | None = None
        self._look: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._writes: dict[str, bytes] = {}
        self._writers: set[asyncio.Task[None]] = set()
        self._refused: str | None = None
        self._trouble: str | None = None
        self._latency_ms: float | None = None
        self.is_up = False

    async def get(self, key: str) -> bytes | None:
        """Returns a value, or None where there is none or Redis is not there to ask."""
        on_its_way = self._writes.get(key)
        if on_its_way is not None:
            return on_its_way
        client = await self._ready()
        if client is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                # Not all of it: what somebody else put there may be of any size.
                value: Any = await client.getrange(NAMESPACE + key, 0, self._max_bytes)
        except Exception as exc:
            if not str(exc).startswith("WRONGTYPE"):  # nothing of ours: as good as nothing
                self._away(exc)
            return None
        return value if isinstance(value, bytes) and 0 < len(value) <= self._max_bytes else None

    async def put(self, key: str, value: bytes) -> None:
        """Sends a value off; nobody waits for it to arrive, and one too many is left out."""
        if len(value) > self._max_bytes or len(self._writes) >= _MOST_WRITES:
            return
        client = await self._ready()
        if client is not None:
            self._writes[key] = value
            task = asyncio.create_task(self._write(client, key, value))
            self._writers.add(task)
            task.add_done_callback(self._writers.discard)

    async def clear(self) -> int | None:
        """Deletes what is in our namespace; returns how many there were, or None where Redis could not be asked."""
        await self._end_writes()
        await self.look()
        client = self._client()
        if client is None or not self.is_up:
            return None
        try:
            async with asyncio.timeout(_CLEAR_PATIENCE):
                return await _delete_all(client)
        except Exception as exc:
            self._away(exc)
            return None

    async def look(self) -> None:
        """Finds out how Redis is; several who want to know at the same time ask once."""
        await asyncio.wait({self._looking()})

    async def aclose(self) -> None:
        """Closes the connections; the next use opens new ones."""
        if self._look is not None:
            self._look.cancel()
        await self._end_writes()
        connected = self._client()
        self._forget()
        if connected is not None:
            await connected.aclose()

    def abandon(self) -> None:
        """Forgets the connections in a forked process: closing them would take them from the parent's event loop."""
        _abandoned.append((self._connected, self._look, self._writers))
        self._writers, self._writes = set(), {}
        self._forget()

    def dependency(self) -> JsonObject:
        """Returns what health tells, as of the last look."""
        state: JsonObject = {"configured": True, "status": "ok", "latency_ms": self._latency_ms, "degrades": False}
        if not self.is_up:
            return {"configured": True, "status": "unreachable", "reason": self._trouble, "degrades": True}
        if self._refused is not None:
            return {**state, "status": "degraded", "reason": f"it takes no values: {self._refused}", "degrades": True}
        return state

    def _forget(self) -> None:
        self._connected, self._look, self._looked_at = None, None, float("-inf")
        self.is_up, self._trouble, self._refused = False, None, None

    async def _ready(self) -> "Redis | None":
        """Returns the client while Redis is up; else somebody looks, and only the first look is waited for."""
        if not self.is_up or self._client() is None:
            if time.monotonic() - self._looked_at >= REST:
                self._looking()
            if self._look is not None and self._trouble is None:
                left = self._looked_at + PATIENCE - time.monotonic()
                await asyncio.wait({self._look}, timeout=max(0.0, left))
        return self._client() if self.is_up else None

    def _client(self) -> "Redis | None":
        connected = self._connected
        return connected[1] if connected is not None and connected[0] is asyncio.get_running_loop() else None

    def _looking(self) -> "asyncio.Task[None]":
        look = self._look
        if look is None or look.done() or look.get_loop() is not asyncio.get_running_loop():
            self._looked_at = time.monotonic()
            look = self._look = asyncio.create_task(self._find_out())
        return look

    async def _find_out(self) -> None:
        try:
            await in_thread(_import)
            client = self._client()
            if client is None:
                client = _client_of(self._url)
                self._connected = (asyncio.get_running_loop(), client)
            started = time.perf_counter()
            async with asyncio.timeout(PATIENCE):
                await client.getrange(NAMESPACE, 0, 0)  # what requests do, so that it stands for them
        except Exception as exc:
            self._away(exc)
            return
        self._latency_ms = round((time.perf_counter() - started) * 1000, 1)
        if self._trouble is not None:
            logger.info("Redis answers again: results are shared through it")
        self.is_up, self._trouble = True, None

    async def _write(self, client: "Redis", key: str, value: bytes) -> None:
        from redis.exceptions import ResponseError

        try:
            async with asyncio.timeout(PATIENCE):
                await client.set(NAMESPACE + key, value, px=self._ttl_ms)
            self._refused = None
        except ResponseError as exc:
            # Full, or a replica: what is in it can be read all the same.
            if self._refused is None:
                logger.warning("Redis takes no results: %s", exc)
            self._refused = str(exc)
        except Exception as exc:
            self._away(exc)
        finally:
            self._writes.pop(key, None)

    async def _end_writes(self) -> None:
        if self._writers:
            await asyncio.wait(self._writers, timeout=2 * PATIENCE)

    def _away(self, exc: Exception) -> None:
        reason = "it does not answer in time" if isinstance(exc, TimeoutError) else str(exc) or type(exc).__name__
        if self._trouble is None:
            logger.warning("Redis is out of use, results are computed: %s", reason)
        self._looked_at = time.monotonic()
        self.is_up, self._trouble = False, reason


def _import() -> None:
    import redis.asyncio  # noqa: F401


def _client_of(url: str) -> "Redis":
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=PATIENCE,
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
    )
    return Redis.from_pool(pool)


async def _delete_all(client: "Redis") -> int:
    count, cursor = 0, 0
    while True:
        cursor, keys = await client.scan(cursor, match=NAMESPACE + "*", count=_SCANNED)
        if keys:
            count += int(await client.unlink(*keys))
        if cursor == 0:
            return count
