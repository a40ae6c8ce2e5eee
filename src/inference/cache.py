"""ModelCache: loaded models by (version, device, dtype), evicted by LRU or LFU, never while in use.

A model's life: loading → ready → (draining →) gone; when its worker dies: dead → loading → ready, or
quarantined when it keeps dying.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from src.core.errors import PlatformError, QueueFullError, WorkerDiedError
from src.core.settings_sections import CacheSettings, WorkerSettings
from src.core.threads import in_thread
from src.inference.types import ServableModel
from src.inference.workers.base import DeathListener, Worker
from src.inference.workers.process import kernel_watch
from src.inference.workers.supervision import Supervisor

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
    """One place in the cache; `worker` is None unless it is ready or draining."""

    key: ModelKey
    model: ServableModel
    loader: Loader
    ready: asyncio.Future[Worker]
    state: str = "loading"
    worker: Worker | None = None
    in_use: int = 0
    uses: int = 0
    last_used: float = field(default_factory=time.monotonic)
    load_seconds: float | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last request left; 0 while one is inside."""
        return 0.0 if self.in_use else time.monotonic() - self.last_used

    @property
    def holds_memory(self) -> bool:
        """Whether it is loaded, or about to be."""
        return self.state in ("loading", "ready")


class Admission(Protocol):
    """Says whether a model may be loaded, by memory."""

    async def admit(
        self, entry: LoadedModel, idle: Callable[[], list[LoadedModel]], evict: Callable[[], Awaitable[bool]]
    ) -> None:
        """Books the memory that a load needs; calls `evict` while there is too little and `idle` models hold enough.

        Raises `InsufficientMemoryError` when that makes no room.
        """
        ...

    @property
    def overbooked(self) -> bool:
        """Whether models turned out to take more than there is for them."""
        ...

    def measure(self, entry: LoadedModel, *, leaving: bool = False) -> None:
        """Measures a loaded model, now that it has worked; `leaving`: for the next time only. May run in a thread."""
        ...

    def loaded(self, entry: LoadedModel) -> None:
        """Books what a loaded model really takes."""
        ...

    def gone(self, entry: LoadedModel) -> None:
        """Gives back what was booked."""
        ...


class ModelCache:
    """Loads single-flight, counts who uses what, and lets idle models go. Lives on one event loop."""

    def __init__(
        self,
        settings: CacheSettings,
        *,
        supervisor: Supervisor | None = None,
        admission: Admission | None = None,
        max_waiting: int = 256,
    ) -> None:
        self._settings = settings
        self._max_waiting = max_waiting
        self._supervisor = supervisor or Supervisor(WorkerSettings())
        self._admission = admission
        self._models: dict[ModelKey, LoadedModel] = {}
        self._draining: set[LoadedModel] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.hits = 0
        self.misses = 0
        self.loads: dict[ModelKey, int] = {}

    def __len__(self) -> int:
        return sum(1 for entry in self._models.values() if entry.worker is not None)

    @property
    def hit_rate(self) -> float:
        """The share of requests whose model was loaded already, 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    def entries(self) -> list[LoadedModel]:
        """Returns every model that is loaded, loading, draining, dead or quarantined."""
        return [*self._models.values(), *self._draining]

    def reachable(self) -> list[LoadedModel]:
        """Returns the models that requests can still enter."""
        return list(self._models.values())

    async def discard(self, entry: LoadedModel) -> None:
        """Takes a model out of reach, unless it is loading; it is unloaded when its requests have ended."""
        if entry.state != "loading":
            await self._retire(entry)

    async def discard_key(self, key: ModelKey) -> None:
        """Takes whatever is at a key out of reach, also what waits to be started again, and forgives its deaths."""
        self._supervisor.forgive(key)
        if (entry := self._models.get(key)) is not None:
            await self.discard(entry)

    def reason(self, entry: LoadedModel) -> str | None:
        """Returns why a model's last worker died."""
        return self._supervisor.reason(entry.key)

    @asynccontextmanager
    async def acquire(self, key: ModelKey, model: ServableModel, loader: Loader) -> AsyncIterator[Worker]:
        """Holds the model for the block; loads it first where it is missing, once for everybody who asks."""
        entry = self.enter(key, model, loader)
        try:
            yield entry.worker if entry.worker is not None else await self.loaded(entry)
        finally:
            self.leave(entry)

    async def loaded(self, entry: LoadedModel) -> Worker:
        """Waits until an entered model is loaded; a caller that gives up does not take it away from the others."""
        return await asyncio.shield(entry.ready)

    def holds(self, key: ModelKey) -> bool:
        """Whether a model is loaded, or being loaded."""
        return key in self._models

    def enter(self, key: ModelKey, model: ServableModel, loader: Loader) -> LoadedModel:
        """Takes hold of a model, to be given up by `leave`; the load starts where it is missing."""
        entry = self._entry(key, model, loader)
        if entry.in_use >= self._max_waiting:
            raise QueueFullError(
                f"{entry.in_use} requests wait for model '{model.name}' already: ask again in a moment"
            )
        entry.in_use += 1
        entry.uses += 1
        return entry

    def leave(self, entry: LoadedModel) -> None:
        """Gives up what `enter` took hold of."""
        entry.in_use -= 1
        entry.last_used = time.monotonic()
        if not entry.in_use:
            self._released(entry)

    async def clear(self) -> int:
        """Forgets every model and every quarantine; returns how many were loaded.

        One in use is unloaded when its requests end.
        """
        entries = list(self._models.values())
        loaded = sum(1 for entry in entries if entry.worker is not None)
        self._supervisor.forgive()
        await asyncio.gather(*(self._retire(entry) for entry in entries if entry.state != "loading"))
        return loaded

    async def sweep(self) -> int:
        """Unloads models idle for longer than the ttl; returns how many."""
        for entry in [entry for entry in self._models.values() if entry.worker is not None]:
            await self._measure(entry)
        while self._overbooked and await self._evict_one():
            logger.warning("a model was unloaded: others take more memory than expected, and more than there is")
        old = [entry for entry in self._idle() if entry.idle_seconds > self._settings.ttl]
        await asyncio.gather(*(self._retire(entry) for entry in old))
        return len(old)

    @property
    def _overbooked(self) -> bool:
        return self._admission is not None and self._admission.overbooked

    async def _measure(self, entry: LoadedModel, *, leaving: bool = False) -> None:
        admission = self._admission
        if admission is not None:
            await in_thread(lambda: admission.measure(entry, leaving=leaving))

    async def sweep_forever(self) -> None:
        """Sweeps now and then, until cancelled."""
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._settings.ttl / 4))
            kernel_watch.look()
            await self.sweep()

    def abandon(self) -> None:
        """Forgets everything without a word to the workers; for a forked copy of the process."""
        for entry in self._models.values():
            abandon = getattr(entry.worker, "abandon", None)
            if abandon is not None:
                abandon()
        self._models.clear()

    # ------------------------------------------------------------------ loading

    def _entry(self, key: ModelKey, model: ServableModel, loader: Loader) -> LoadedModel:
        entry = self._models.get(key)
        if entry is not None and entry.state == "quarantined":
            error = self._supervisor.quarantine(key)
            if error is not None:
                raise error
            entry = None
        if entry is None:
            self.misses += 1
            entry = self._models[key] = self._new(key, model, loader)
            self._spawn(self._load(entry))
        else:
            self.hits += 1
        return entry

    def _new(self, key: ModelKey, model: ServableModel, loader: Loader, state: str = "loading") -> LoadedModel:
        return LoadedModel(key, model, loader, asyncio.get_running_loop().create_future(), state)

    async def _load(self, entry: LoadedModel) -> None:
        started = time.monotonic()
        try:
            await self._make_room(entry)
            if self._admission is not None:
                await self._admission.admit(entry, self._idle, self._evict_one)
            worker = await entry.loader(lambda error: self._died(entry, error))
        except BaseException as exc:
            self._load_failed(entry, exc)
            if not isinstance(exc, Exception):
                raise
            return
        entry.worker, entry.state, entry.load_seconds = worker, "ready", time.monotonic() - started
        if self._admission is not None:
            self._admission.loaded(entry)
        self.loads[entry.key] = self.loads.get(entry.key, 0) + 1
        logger.info(
            "model loaded",
            extra={"model": entry.model.name, "seconds": round(entry.load_seconds, 3), "pid": worker.pid},
        )
        entry.ready.set_result(worker)
        # The requests that waited enter first; with nobody waiting, a surplus goes at once.
        asyncio.get_running_loop().call_soon(self._released, entry)

    def _load_failed(self, entry: LoadedModel, exc: BaseException) -> None:
        self._forget(entry)
        if self._admission is not None:
            self._admission.gone(entry)
        entry.ready.set_exception(exc)
        entry.ready.exception()  # seen, also when every caller has left
        if isinstance(exc, WorkerDiedError):
            self._start_again(entry, exc)

    async def _make_room(self, entry: LoadedModel) -> None:
        await self._cap_variants(entry)
        while sum(1 for other in self._models.values() if other.holds_memory) > self._settings.max_size:
            if not await self._evict_one():
                return  # all are busy: the surplus goes as soon as one is free

    async def _cap_variants(self, entry: LoadedModel) -> None:
        siblings = [e for e in self._models.values() if e.key.model == entry.key.model and e is not entry]
        while len([e for e in siblings if e.holds_memory]) >= self._settings.max_variants:
            idle = [sibling for sibling in self._idle() if sibling in siblings]
            if not idle:
                raise QueueFullError(
                    f"{len(siblings)} variants (device, dtype) of '{entry.model.name}' are in use already: leave "
                    "device and dtype out, or ask again in a moment"
                )
            chosen = min(idle, key=self._worth)
            siblings.remove(chosen)
            await self._retire(chosen)

    # ------------------------------------------------------------------ letting go

    async def _evict_one(self) -> bool:
        idle = self._idle()
        if not idle:
            return False
        await self._retire(min(idle, key=self._worth))
        return True

    def _idle(self) -> list[LoadedModel]:
        return [entry for entry in self._models.values() if entry.worker is not None and not entry.in_use]

    def _worth(self, entry: LoadedModel) -> tuple[float, float]:
        if self._settings.strategy == "lfu":
            return entry.uses, entry.last_used
        return entry.last_used, entry.uses

    def _released(self, entry: LoadedModel) -> None:
        if entry.in_use or entry.worker is None:
            return
        if self._models.get(entry.key) is not entry or len(self) > self._settings.max_size:
            self._spawn(self._retire(entry))

    async def _retire(self, entry: LoadedModel) -> None:
        """Takes a model out of reach, and unloads it unless requests are still inside."""
        self._forget(entry)
        if entry.in_use and entry.worker is not None:
            entry.state = "draining"
            self._draining.add(entry)
            return
        self._draining.discard(entry)
        await self._measure(entry, leaving=True)
        worker, entry.worker = entry.worker, None
        if worker is not None:
            await worker.unload()
            logger.info("model unloaded", extra={"model": entry.model.name})
        if not entry.ready.done():
            entry.ready.set_exception(WorkerDiedError("the model was unloaded meanwhile; ask again"))
            entry.ready.exception()
        if self._admission is not None:
            self._admission.gone(entry)
        entry.gone.set()

    def _forget(self, entry: LoadedModel) -> None:
        if self._models.get(entry.key) is entry:
            del self._models[entry.key]

    # ------------------------------------------------------------------ deaths

    def _died(self, entry: LoadedModel, error: PlatformError) -> None:
        worker, entry.worker = entry.worker, None
        entry.gone.set()
        in_reach = self._models.get(entry.key) is entry
        self._forget(entry)
        self._draining.discard(entry)
        if self._admission is not None:
            self._admission.gone(entry)
        logger.error("worker died: %s", error.message, extra={"model": entry.model.name})
        if in_reach:
            self._start_again(entry, error)
        if worker is not None:
            self._spawn(self._explain(entry, worker))

    def _start_again(self, entry: LoadedModel, error: PlatformError) -> None:
        """Puts a successor in the dead model's place: it starts after a while, or is quarantined."""
        pause = self._supervisor.died(entry.key, error.message)
        successor = self._new(entry.key, entry.model, entry.loader, "quarantined" if pause is None else "dead")
        successor.uses = entry.uses
        self._models[entry.key] = successor
        if pause is None:
            logger.error("model quarantined: %s", error.message, extra={"model": entry.model.name})
            successor.ready.cancel()
        else:
            self._spawn(self._load_later(successor, pause))

    async def _load_later(self, entry: LoadedModel, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._models.get(entry.key) is entry:
            entry.state = "loading"
            await self._load(entry)

    async def _explain(self, entry: LoadedModel, worker: Worker) -> None:
        reason = await worker.post_mortem()
        if reason:
            logger.error("worker died: %s", reason, extra={"model": entry.model.name})
            self._supervisor.explain(entry.key, reason)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
