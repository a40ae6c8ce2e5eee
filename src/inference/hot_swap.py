"""HotSwapper: a version takes over from another while requests come in, and none of them fails.

verify → admit → load → warm → switch → drain. The version that serves is held in memory until the switch;
requests that began on it finish on it, and it stays cached until its ttl or an eviction, so that going
back loads nothing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

from src.core.errors import InsufficientMemoryError, PlatformError
from src.core.registry.versions import RegisteredVersion
from src.core.threads import in_thread
from src.core.transition import Replacement, SwapReport, Switch, TransitionRefusedError
from src.inference.cache import LoadedModel, ModelCache
from src.inference.router import TaskRouter
from src.inference.types import JsonObject

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 300.0
"""How long a swap with downtime waits for the requests inside the old version."""


class Way(NamedTuple):
    """How a model is asked for: each way is a load of its own."""

    task: str
    engine: str
    device: str | None
    dtype: str | None


Load = tuple[RegisteredVersion, Way]


class HotSwapper:
    """Swaps versions of one cache; lives on its event loop."""

    def __init__(self, router: TaskRouter, cache: ModelCache) -> None:
        self._router = router
        self._cache = cache
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def swap(
        self, plan: Sequence[Replacement], switch: Switch, undo: Callable[[], None], *, allow_downtime: bool
    ) -> tuple[RegisteredVersion, SwapReport]:
        """Brings the plan's next versions up and switches; see `src.core.transition.HotSwap`."""
        if not plan:
            return await in_thread(switch), SwapReport()
        name = plan[0].after.name
        turn = self._turns.setdefault(name, asyncio.Lock())
        async with turn, self._pinned(name) as present:
            loads = _loads(plan, present)
            try:
                fresh = await self._bring_up(loads)
            except InsufficientMemoryError as exc:
                if not allow_downtime:
                    raise _does_not_fit(exc, plan) from exc
            except PlatformError as exc:
                raise _refused(exc, plan) from exc
            else:
                try:
                    return await in_thread(switch), _report(fresh)
                finally:
                    self._let_go(fresh)
            replaced = [entry for entry in present if _is_replaced(entry, plan)]
            self._let_go(replaced)
            present[:] = [entry for entry in present if entry not in replaced]
            return await self._swap_with_downtime(plan, loads, replaced, switch, undo)

    async def _swap_with_downtime(
        self,
        plan: Sequence[Replacement],
        loads: Sequence[Load],
        replaced: Sequence[LoadedModel],
        switch: Switch,
        undo: Callable[[], None],
    ) -> tuple[RegisteredVersion, SwapReport]:
        """Unloads first; between that and the next version's load nothing answers."""
        version = await in_thread(switch)
        started = time.monotonic()
        await asyncio.gather(*(self._cache.discard(entry) for entry in replaced))
        await self._drained(replaced)
        try:
            try:
                fresh = await self._bring_up(loads)
            except InsufficientMemoryError:
                # A request may have begun this load before the old version had gone.
                fresh = await self._bring_up(loads)
        except PlatformError as exc:
            await in_thread(undo)
            raise _refused(exc, plan) from exc
        self._let_go(fresh)
        return version, _report(fresh, time.monotonic() - started)

    async def _bring_up(self, loads: Sequence[Load]) -> list[LoadedModel]:
        """Loads and warms; what comes back is held. A failure leaves nothing that was not there before."""
        held: list[LoadedModel] = []
        before = set(self._cache.entries())
        try:
            for version, way in loads:
                executor = self._router.route(way.task, version.engine or way.engine, version.name)
                if not executor.engine.is_network:
                    held.append(executor.hold(version, way.device, way.dtype))
            outcomes = await asyncio.gather(*(self._cache.loaded(entry) for entry in held), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        except BaseException:
            self._let_go(held)
            # Also what died and would be started again.
            await asyncio.gather(*(self._cache.discard_key(entry.key) for entry in held if entry not in before))
            raise
        return held

    @asynccontextmanager
    async def _pinned(self, name: str) -> AsyncIterator[list[LoadedModel]]:
        """Holds every loaded version of a model, so that none is evicted to make room for the next."""
        present = [
            entry for entry in self._cache.reachable() if entry.model.registered and entry.model.registered.name == name
        ]
        for entry in present:
            entry.in_use += 1
        try:
            yield present
        finally:
            self._let_go(present)

    def _let_go(self, entries: Sequence[LoadedModel]) -> None:
        for entry in entries:
            self._cache.leave(entry)

    async def _drained(self, entries: Sequence[LoadedModel]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.gather(*(entry.gone.wait() for entry in entries))


def _loads(plan: Sequence[Replacement], present: Sequence[LoadedModel]) -> list[Load]:
    """Returns what has to be loaded: each next version, in every way in which the one that it replaces is in use.

    Where the replaced version of production is not loaded but another is, the ways of that one count.
    """
    loads: dict[tuple[str, Way], Load] = {}
    for item in plan:
        replaced = [entry for entry in present if item.before and _version(entry) == item.before.version]
        others = [] if item.reference.endswith("@staging") else present
        for entry in replaced or others:
            way = Way(entry.key.task, entry.key.engine, entry.key.device, entry.key.dtype)
            loads[item.after.version, way] = item.after, way
    return list(loads.values())


def _is_replaced(entry: LoadedModel, plan: Sequence[Replacement]) -> bool:
    return _version(entry) in {item.before.version for item in plan if item.before}


def _version(entry: LoadedModel) -> str | None:
    return entry.model.registered.version if entry.model.registered else None


def _report(fresh: Sequence[LoadedModel], downtime: float = 0.0) -> SwapReport:
    return SwapReport([_told(entry) for entry in fresh], downtime)


def _told(entry: LoadedModel) -> JsonObject:
    return {
        "version": _version(entry),
        "task": entry.key.task,
        "engine": entry.key.engine,
        "device": entry.worker.report.device if entry.worker else None,
        "load_seconds": entry.load_seconds,
    }


def _refused(exc: PlatformError, plan: Sequence[Replacement]) -> TransitionRefusedError:
    after = plan[0].after
    return TransitionRefusedError(
        f"Version {after.version} of '{after.name}' cannot take over, and nothing was changed: {exc.message}",
        details={"version": after.version, "error_type": exc.error_type, **exc.details},
    )


def _does_not_fit(exc: InsufficientMemoryError, plan: Sequence[Replacement]) -> InsufficientMemoryError:
    after = plan[0].after
    return InsufficientMemoryError(
        f"Version {after.version} of '{after.name}' does not fit beside the one that serves, and nothing was changed: "
        f'{exc.message} Or say "allow_downtime": true, and the old version is unloaded first.',
        details=exc.details,
    )
