"""ModelCache: loaded models by (version, device, dtype), evicted by LRU or LFU, never while in use."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from src.core.config import CacheSettings
from src.core.errors import PlatformError
from src.inference.types import ServableModel
from src.inference.workers.base import DeathListener, Worker

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0


class ModelKey(NamedTuple):
    """What makes two loads the same: the bytes, where and how they run, and who runs them."""

    model: str
    engine: str
    task: str
    handler: str
    device: str | None
    dtype: str | None


Loader = Callable[[DeathListener], Awaitable[Worker]]


@dataclass(slots=True, eq=False)
class LoadedModel:
    """One place in the cache; `worker` is None while it loads."""

    key: ModelKey
    model: ServableModel
    ready: asyncio.Future[Worker]
    worker: Worker | None = None
    in_use: int = 0
    uses: int = 0
    last_used: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> str:
        """`loading` or `ready`."""
        return "loading" if self.worker is None else "ready"

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last request left; 0 while one is inside."""
        return 0.0 if self.in_use else time.monotonic() - self.last_used


class ModelCache:
    """Loads single-flight, counts who uses what, and lets idle models go. Lives on one event loop."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._models: dict[ModelKey, LoadedModel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.hits = 0
        self.misses = 0
        self.loads: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(1 for entry in self._models.values() if entry.worker is not None)

    @property
    def hit_rate(self) -> float:
        """The share of requests whose model was loaded already, 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    def entries(self) -> list[LoadedModel]:
        """Returns what is loaded or loading."""
        return list(self._models.values())

    @asynccontextmanager
    async def acquire(self, key: ModelKey, model: ServableModel, loader: Loader) -> AsyncIterator[Worker]:
        """Holds the model for the block; loads it first where it is missing, once for everybody who asks."""
        entry = self._models.get(key)
        if entry is None:
            self.misses += 1
            entry = LoadedModel(key, model, asyncio.get_running_loop().create_future())
            self._models[key] = entry
            self._spawn(self._load(entry, loader))
        else:
            self.hits += 1
        entry.in_use += 1
        entry.uses += 1
        try:
            # Shielded: a caller that gives up does not take the load away from the others.
            yield await asyncio.shield(entry.ready)
        finally:
            entry.in_use -= 1
            entry.last_used = time.monotonic()
            self._released(entry)

    async def clear(self) -> int:
        """Forgets every loaded model and returns how many; one in use is unloaded when its requests end."""
        entries = [entry for entry in self._models.values() if entry.worker is not None]
        for entry in entries:
            self._forget(entry)
        await asyncio.gather(*(self._unload(entry) for entry in entries if not entry.in_use))
        return len(entries)

    async def sweep(self) -> int:
        """Unloads models idle for longer than the ttl; returns how many."""
        old = [e for e in self._idle() if e.idle_seconds > self._settings.ttl]
        for entry in old:
            self._forget(entry)
        await asyncio.gather(*(self._unload(entry) for entry in old))
        return len(old)

    async def sweep_forever(self) -> None:
        """Sweeps now and then, until cancelled."""
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._settings.ttl / 4))
            await self.sweep()

    def abandon(self) -> None:
        """Forgets everything without a word to the workers; for a forked copy of the process."""
        for entry in self._models.values():
            abandon = getattr(entry.worker, "abandon", None)
            if abandon is not None:
                abandon()
        self._models.clear()

    async def _load(self, entry: LoadedModel, loader: Loader) -> None:
        try:
            await self._make_room()
            started = time.monotonic()
            worker = await loader(lambda error: self._died(entry, error))
        except BaseException as exc:
            self._forget(entry)
            entry.ready.set_exception(exc)
            entry.ready.exception()  # seen, also when every caller has left
            if not isinstance(exc, Exception):
                raise
            return
        entry.worker = worker
        self.loads[entry.key.model] = self.loads.get(entry.key.model, 0) + 1
        logger.info(
            "model loaded",
            extra={"model": entry.model.name, "seconds": round(time.monotonic() - started, 3), "pid": worker.pid},
        )
        entry.ready.set_result(worker)
        self._released(entry)

    async def _make_room(self) -> None:
        while sum(1 for e in self._models.values() if e.worker is not None) >= self._settings.max_size:
            idle = self._idle()
            if not idle:
                return  # all are busy: the surplus goes as soon as one is free
            chosen = min(idle, key=self._worth)
            self._forget(chosen)
            await self._unload(chosen)

    def _released(self, entry: LoadedModel) -> None:
        if entry.in_use or entry.worker is None:
            return
        surplus = len(self) > self._settings.max_size
        if self._models.get(entry.key) is not entry or surplus:
            self._forget(entry)
            self._spawn(self._unload(entry))

    def _died(self, entry: LoadedModel, error: PlatformError) -> None:
        logger.error("worker of %s died: %s", entry.model.name, error, extra={"model": entry.model.name})
        self._forget(entry)

    def _idle(self) -> list[LoadedModel]:
        return [entry for entry in self._models.values() if entry.worker is not None and not entry.in_use]

    def _worth(self, entry: LoadedModel) -> tuple[float, float]:
        if self._settings.strategy == "lfu":
            return entry.uses, entry.last_used
        return entry.last_used, entry.uses

    def _forget(self, entry: LoadedModel) -> None:
        if self._models.get(entry.key) is entry:
            del self._models[entry.key]

    async def _unload(self, entry: LoadedModel) -> None:
        worker, entry.worker = entry.worker, None
        if worker is not None:
            await worker.unload()
            logger.info("model unloaded", extra={"model": entry.model.name})

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
