"""Results in this process: the least recently used go first, by bytes."""

import time
from collections import OrderedDict
from collections.abc import Callable

ENTRY_OVERHEAD = 400
"""Bytes that an entry takes beside its value: key, numbers and their places, about."""


class MemoryResults:
    """Keeps values for `ttl` seconds, in `max_bytes` at most. One event loop uses it."""

    def __init__(self, max_bytes: int, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> bytes | None:
        """Returns a value that is kept and not too old."""
        found = self._kept.get(key)
        if found is None:
            return None
        value, ends = found
        if ends <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value; what was used least recently makes room. One that is larger than everything is not kept."""
        if key in self._kept:
            self._drop(key)
        size = len(value) + ENTRY_OVERHEAD
        if size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = (value, self._clock() + self._ttl)
        self.bytes += size

    def clear(self) -> int:
        """Drops everything; returns how many there were."""
        count = len(self._kept)
        self._kept.clear()
        self.bytes = 0
        return count

    def _drop(self, key: str) -> None:
        value, _ = self._kept.pop(key)
        self.bytes -= len(value) + ENTRY_OVERHEAD
