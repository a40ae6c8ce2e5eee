"""Loaded models and the line before them: slots, a bounded queue, expiry, eviction, death."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from src.testing.fake_ollama.errors import runner_died, server_busy
from src.testing.fake_ollama.names import ModelName
from src.testing.fake_ollama.pace import Counts, Pace
from src.testing.fake_ollama.store import StoredModel

KEEP_ALIVE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests that one model answers at a time, requests that may wait, models loaded at once."""

    parallel: int = 1
    max_queue: int = 512
    max_loaded: int = 3


@dataclass(eq=False, slots=True)
class Runner:
    """A loaded model; `expires_at` in seconds since 1970."""

    stored: StoredModel
    options: tuple[Any, ...]
    context_length: int
    loading: "asyncio.Task[None]"
    active: int = 0
    expires_at: float = 0.0
    unload_wanted: bool = False
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float) -> None:
        """Waits, at least for a turn of the loop; raises `ApiError` once the runner is dead."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.killed.wait(), seconds)
        else:
            await asyncio.sleep(0)
        if self.killed.is_set():
            raise runner_died()


@dataclass(eq=False, slots=True)
class _Waiting:
    stored: StoredModel
    options: tuple[Any, ...]
    context_length: int
    granted: "asyncio.Future[Runner]"


class Scheduler:
    """Gives each request a runner, in the order of arrival for each model."""

    def __init__(self, limits: Limits, pace: Pace, counts: Counts) -> None:
        self._limits = limits
        self._pace = pace
        self._counts = counts
        self._runners: dict[ModelName, Runner] = {}
        self._line: list[_Waiting] = []

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._line)

    @asynccontextmanager
    async def runner(
        self, stored: StoredModel, options: tuple[Any, ...], context_length: int, keep_alive: float | None
    ) -> AsyncGenerator[Runner]:
        """Lends a loaded runner; raises `ApiError` 503 where the queue is full."""
        waiting = _Waiting(stored, options, context_length, asyncio.get_running_loop().create_future())
        runner = await self._take(waiting)
        keep_alive = KEEP_ALIVE_SECONDS if keep_alive is None else keep_alive
        runner.expires_at = time.time() + keep_alive
        try:
            # Shielded: loading goes on for the others when the client that caused it leaves.
            await asyncio.shield(runner.loading)
            yield runner
        finally:
            self._give_back(runner, keep_alive)

    def loaded(self) -> list[Runner]:
        """Returns the runners that have not expired."""
        now = time.time()
        for name, runner in list(self._runners.items()):
            if runner.active == 0 and runner.expires_at <= now:
                del self._runners[name]
        return list(self._runners.values())

    def unload(self, name: ModelName) -> None:
        """Unloads a model, once its last request is answered."""
        if runner := self._runners.get(name):
            runner.unload_wanted = True
            if runner.active == 0:
                del self._runners[name]
                self._serve_line()

    def kill(self) -> int:
        """Kills every runner under its requests; returns how many there were."""
        runners = list(self._runners.values())
        self._runners.clear()
        for runner in runners:
            runner.killed.set()
        self._serve_line()
        return len(runners)

    async def _take(self, waiting: _Waiting) -> Runner:
        same_model_waits = any(other.stored.name == waiting.stored.name for other in self._line)
        if not same_model_waits and (runner := self._try(waiting)):
            return runner
        if len(self._line) >= self._limits.max_queue:
            raise server_busy()
        self._line.append(waiting)
        try:
            return await waiting.granted
        except asyncio.CancelledError:
            # The runner can be granted in the same turn of the loop in which the client leaves.
            if waiting.granted.done() and not waiting.granted.cancelled():
                self._give_back(waiting.granted.result(), KEEP_ALIVE_SECONDS)
            raise
        finally:
            if waiting in self._line:
                self._line.remove(waiting)
                self._serve_line()

    def _try(self, waiting: _Waiting) -> Runner | None:
        """Returns a runner with a free slot, started if there is room for it."""
        loaded = self.loaded()
        runner = self._runners.get(waiting.stored.name)
        if runner and runner.options == waiting.options and runner.stored == waiting.stored:
            if runner.active >= self._limits.parallel:
                return None
        elif runner and runner.active:
            return None
        else:
            if runner is None and len(loaded) >= self._limits.max_loaded and not self._evict(loaded):
                return None
            runner = self._start(waiting)
        runner.active += 1
        return runner

    def _evict(self, loaded: list[Runner]) -> bool:
        idle = [runner for runner in loaded if runner.active == 0]
        if idle:
            oldest = min(idle, key=lambda runner: runner.expires_at)
            del self._runners[oldest.stored.name]
        return bool(idle)

    def _start(self, waiting: _Waiting) -> Runner:
        self._counts.loads += 1
        loading = asyncio.create_task(asyncio.sleep(self._pace.load_delay))
        runner = Runner(waiting.stored, waiting.options, waiting.context_length, loading)
        self._runners[waiting.stored.name] = runner
        return runner

    def _give_back(self, runner: Runner, keep_alive: float) -> None:
        runner.active -= 1
        runner.expires_at = time.time() + keep_alive
        mine = self._runners.get(runner.stored.name) is runner
        if mine and runner.active == 0 and (keep_alive <= 0 or runner.unload_wanted):
            del self._runners[runner.stored.name]
        self._serve_line()

    def _serve_line(self) -> None:
        passed_over: set[ModelName] = set()
        for waiting in list(self._line):
            name = waiting.stored.name
            if waiting.granted.done() or name in passed_over:
                continue
            if runner := self._try(waiting):
                self._line.remove(waiting)
                waiting.granted.set_result(runner)
            else:
                passed_over.add(name)
