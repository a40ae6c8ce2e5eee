"""A model cache over workers of nothing, for tests of who is loaded, kept and let go."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from src.core.errors import InsufficientMemoryError
from src.core.settings_sections import CacheSettings, WorkerSettings
from src.inference.cache import Admission, LoadedModel, ModelCache, ModelKey
from src.inference.types import JsonObject, ServableModel
from src.inference.workers.base import DeathListener, LoadReport, LoadSpec, WorkerAnswer
from src.inference.workers.supervision import Supervisor


class FakeWorker:
    """A worker of nothing, which remembers whether it was unloaded."""

    pid = 0
    in_flight = 0

    def __init__(self, name: str, on_death: DeathListener) -> None:
        self.report = LoadReport("cpu", "float32", None)
        self.name = name
        self.die = on_death
        self.unloaded = 0
        self.abandoned = False
        self.autopsy: str | None = None

    async def load(self, spec: LoadSpec, on_death: DeathListener) -> None:
        raise AssertionError("the loader hands out loaded workers")

    async def infer(self, data: Any, options: JsonObject) -> WorkerAnswer:
        return WorkerAnswer({}, [])

    async def unload(self) -> None:
        self.unloaded += 1

    async def post_mortem(self) -> str | None:
        return self.autopsy

    def abandon(self) -> None:
        self.abandoned = True

    def memory_bytes(self) -> int | None:
        return None


class Rack:
    """A cache, what it loaded by name, and a gate that loads wait behind."""

    def __init__(
        self,
        max_size: int = 2,
        ttl: float = 3600.0,
        strategy: Literal["lru", "lfu"] = "lru",
        max_variants: int = 2,
        max_deaths: int = 4,
        max_waiting: int = 256,
        admission: Admission | None = None,
    ) -> None:
        settings = CacheSettings(max_size=max_size, ttl=ttl, strategy=strategy, max_variants=max_variants)
        supervisor = Supervisor(WorkerSettings(max_deaths=max_deaths))
        self.cache = ModelCache(settings, supervisor=supervisor, admission=admission, max_waiting=max_waiting)
        self.loads: Counter[str] = Counter()
        self.workers: dict[str, FakeWorker] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: BaseException | None = None

    @asynccontextmanager
    async def use(self, name: str, device: str | None = None) -> AsyncIterator[FakeWorker]:
        async def load(on_death: DeathListener) -> FakeWorker:
            self.loads[name] += 1
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            self.workers[name] = FakeWorker(name, on_death)
            return self.workers[name]

        key = ModelKey(name, "fake", "task", "handler", device, None)
        async with self.cache.acquire(key, ServableModel(name, name), load) as worker:
            assert isinstance(worker, FakeWorker)
            yield worker

    async def touch(self, *names: str) -> None:
        for name in names:
            async with self.use(name):
                pass
        await settle()

    def grow_older(self, name: str, seconds: float) -> None:
        for entry in self.cache.entries():
            if entry.model.name == name:
                entry.last_used -= seconds

    def loaded(self) -> set[str]:
        return {entry.model.name for entry in self.cache.entries() if entry.state == "ready"}


async def settle() -> None:
    """Lets every task that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Scales:
    """An admission with room for some models, of which each takes one place until it is measured."""

    def __init__(self, room: int = 1, *, really: dict[str, int] | None = None) -> None:
        self.booked: list[str] = []
        self._room = room
        self._really = really or {}
        self._measured: dict[str, int] = {}

    @property
    def overbooked(self) -> bool:
        return sum(self._measured.get(name, 1) for name in self.booked) > self._room

    async def admit(
        self, entry: LoadedModel, idle: Callable[[], list[LoadedModel]], evict: Callable[[], Awaitable[bool]]
    ) -> None:
        while len(self.booked) >= self._room:
            if not await evict():
                raise InsufficientMemoryError("no room")
        self.booked.append(entry.model.name)

    def loaded(self, entry: LoadedModel) -> None:
        assert entry.model.name in self.booked

    def measure(self, entry: LoadedModel, *, leaving: bool = False) -> None:
        assert entry.worker is not None
        if not leaving:
            self._measured[entry.model.name] = self._really.get(entry.model.name, 1)

    def gone(self, entry: LoadedModel) -> None:
        if entry.model.name in self.booked:
            self.booked.remove(entry.model.name)
