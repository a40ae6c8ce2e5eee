"""ResultCache: answers that are kept for whoever asks the same again, in this process or in a Redis that is shared.

Values are JSON, and nothing in them is executed or believed to be of our making.
"""

from typing import Any

import orjson

from src.core import metrics
from src.core.settings_sections import ResultSettings
from src.inference.results_memory import MemoryResults
from src.inference.results_redis import RedisResults
from src.inference.types import JsonObject

_MB = 1_000_000


class ResultCache:
    """Keeps JSON objects by key. It constructs cheap; the first use connects to Redis where one is configured.

    No method raises for a Redis that is away, slow, full, or has something else under our keys.
    """

    def __init__(self, settings: ResultSettings) -> None:
        self._settings = settings
        self._max_entry = int(settings.max_entry_mb * _MB)
        url = settings.redis_url.get_secret_value()
        self._redis = RedisResults(url, self._max_entry, settings.ttl) if url else None
        self._memory = MemoryResults(int(settings.max_mb * _MB), settings.ttl)
        self._hits = self._misses = 0

    async def get(self, key: str) -> JsonObject | None:
        """Returns the value kept under a key, a copy of its own; None where there is none."""
        kept = self._memory.get(key) if self._redis is None else await self._redis.get(key)
        value = _parsed(kept)
        if value is not None:
            self._hits += 1
            metrics.result_lookup("hit").inc()
            return value
        self._misses += 1
        away = self._redis is not None and not self._redis.is_up
        metrics.result_lookup("unreachable" if away else "miss").inc()
        return None

    async def put(self, key: str, value: JsonObject) -> None:
        """Keeps a value, unless it is too large or holds what JSON does not."""
        written = _written(value)
        if written is None or len(written) > self._max_entry:
            return
        if self._redis is None:
            self._memory.put(key, written)
        else:
            await self._redis.put(key, written)

    async def clear(self) -> int | None:
        """Drops every result; returns how many there were, or None where Redis could not be asked to."""
        return self._memory.clear() if self._redis is None else await self._redis.clear()

    def stats(self) -> JsonObject:
        """Returns what `/inference/stats` tells; entries and bytes are null for what lies in Redis."""
        local = self._redis is None
        return {
            "backend": "memory" if local else "redis",
            "hits": self._hits,
            "misses": self._misses,
            "entries": len(self._memory) if local else None,
            "bytes": self._memory.bytes if local else None,
        }

    async def dependency(self) -> JsonObject:
        """Returns what health tells of Redis, after a look at it."""
        if self._redis is None:
            return {"configured": False, "status": "not configured", "degrades": False}
        await self._redis.look()
        return self._redis.dependency()

    async def start(self) -> None:
        """Connects to Redis where one is configured, so that the first request need not."""
        if self._redis is not None:
            await self._redis.look()

    async def aclose(self) -> None:
        """Closes what is open; the cache may be used again."""
        if self._redis is not None:
            await self._redis.aclose()

    def abandon(self) -> None:
        """Makes the copy in a forked process usable."""
        if self._redis is not None:
            self._redis.abandon()


def _parsed(kept: bytes | None) -> JsonObject | None:
    if kept is None:
        return None
    try:
        value: Any = orjson.loads(kept)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _written(value: JsonObject) -> bytes | None:
    """Returns a value as JSON; None where reading it back would give another one (NaN, a tuple, an array)."""
    try:
        written = orjson.dumps(value)
        return written if orjson.loads(written) == value else None
    except (TypeError, ValueError):
        return None
