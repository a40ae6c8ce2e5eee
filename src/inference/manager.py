"""InferenceManager: the façade of inference, for HTTP and for Python."""

import asyncio
import gc
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from src.core.errors import DrainingError, InvalidInputError, PlatformError
from src.core.model_manager import ModelManager
from src.core.registry.versions import RegisteredVersion
from src.core.threads import in_background, in_thread
from src.core.transition import Replacement, SwapReport, Switch, without_models
from src.inference import reporting
from src.inference.accounting import RequestAccount
from src.inference.executor import error_of
from src.inference.manager_parts import ManagerParts
from src.inference.registry import ModelRegistry
from src.inference.request_shape import check_types
from src.inference.stats import InferenceStats
from src.inference.streaming import follow
from src.inference.types import InferenceRequest, JsonObject, failure_envelope, success_envelope
from src.inference.workers import buffers

logger = logging.getLogger(__name__)


def settle_memory() -> None:
    """Has the garbage collector leave alone what is alive now, which is there to stay."""
    gc.collect()
    gc.freeze()


class InferenceManager(ManagerParts):
    """Serves every task on every engine.

    It constructs empty and cheap. The blocking methods may be called from any thread, the async ones
    from any event loop: the work itself runs on one loop, the service's own or one in a daemon thread.
    """

    def __init__(self, models: ModelManager, registry: ModelRegistry) -> None:
        super().__init__(models, registry)
        self._stats = InferenceStats()
        self._account = RequestAccount(self._stats, registry, models)
        self._sweeper: asyncio.Task[None] | None = None
        self._draining = False
        os.register_at_fork(after_in_child=self._forked)

    # ------------------------------------------------------------------ documented names

    def infer(
        self,
        task: str,
        engine: str,
        model_name: str,
        data: JsonObject,
        options: JsonObject | None = None,
        *,
        raise_on_error: bool = False,
    ) -> JsonObject:
        """Returns the documented envelope: `success` and `result`, or `error` and `error_type`.

        With `raise_on_error` a failure is raised as the `InferenceError` subclass that it is.
        """
        return self._loop.run(self.ainfer_here(task, engine, model_name, data, options, raise_on_error))

    async def ainfer(
        self,
        task: str,
        engine: str,
        model_name: str,
        data: JsonObject,
        options: JsonObject | None = None,
        *,
        raise_on_error: bool = False,
    ) -> JsonObject:
        """Like `infer`, awaited; cancelling it stops the work."""
        return await self._loop.arun(self.ainfer_here(task, engine, model_name, data, options, raise_on_error))

    def stream(
        self,
        task: str,
        engine: str,
        model_name: str,
        data: JsonObject,
        options: JsonObject | None = None,
        *,
        raise_on_error: bool = False,
    ) -> Iterator[JsonObject]:
        """Yields `{"type": "delta", "text": …}` for each piece of the answer, and last `{"type": "result", …}`.

        The last one holds what `infer` returns, and `usage` (tokens); after a failure it is `{"type": "error", …}`, or
        it is raised with `raise_on_error`. Leaving the loop early, or closing the generator, stops the work.
        """
        events = self._events_here(task, engine, model_name, data, options, raise_on_error)
        try:
            while (event := self._loop.run(_next_of(events))) is not None:
                yield event
        finally:
            self._loop.run(events.aclose())

    async def astream(
        self,
        task: str,
        engine: str,
        model_name: str,
        data: JsonObject,
        options: JsonObject | None = None,
        *,
        raise_on_error: bool = False,
    ) -> AsyncGenerator[JsonObject, None]:
        """Like `stream`, awaited."""
        events = self._events_here(task, engine, model_name, data, options, raise_on_error)
        try:
            while (event := await self._loop.arun(_next_of(events))) is not None:
                yield event
        finally:
            await self._loop.arun(events.aclose())

    def health_check(self) -> JsonObject:
        """Returns `status` (healthy or degraded), `components` in this process, `dependencies` beyond it."""
        return self._loop.run(self.ahealth())

    def get_stats(self) -> JsonObject:
        """Returns counts, rates, tasks and models; see docs/usage.md for each field."""
        return self._loop.run(self.astats())

    def get_cached_models(self) -> list[JsonObject]:
        """Returns the loaded models: name, version, task, engine, device, memory in bytes, idle seconds."""
        if not self._loop.started:
            return []
        return self._loop.run(self._cached_models())

    def clear_cache(self) -> int:
        """Unloads every model and returns how many; one in use goes when its requests end. Safe in atexit."""
        if not self._loop.started:
            return 0
        return self._loop.run(self.aclear_cache())

    def close(self) -> None:
        """Unloads every model and ends the loop of the Python door; the next call starts a new one."""
        if self._loop.started:
            self._loop.run(self.stop())
            self._draining = False
            self._loop.end()
        self._models.close()

    # ------------------------------------------------------------------ the service's side

    async def start(self) -> None:
        """Makes the running loop the one that serves, and brings the registry up behind it."""
        self._loop.bind(asyncio.get_running_loop())
        self._draining = False
        loop = asyncio.get_running_loop()
        buffers.sweep()
        # MLflow's import leaves a million objects behind: a collection that walks them stops every request.
        in_background(self._models.registry.start, settle_memory)
        self._starting = asyncio.create_task(self.results.start())
        if self.settings.workers.preload != "never":
            in_background(lambda: self._warm(loop), lambda: None)

    async def stop(self) -> None:
        """Takes no new request, unloads every model and closes what engines hold open."""
        self._draining = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self.cache.clear()
        for executor in self.router.executors():
            await executor.close()
        await self.launcher.preloader.stop()
        await self.results.aclose()
        if "media" in self.__dict__:
            await self.__dict__.pop("media").close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that requests run on; None before the first one."""
        return self._loop.bound

    async def execute(self, request: InferenceRequest) -> JsonObject:
        """Returns the success envelope; raises a `PlatformError`. Runs on the service's loop."""
        started = time.perf_counter()
        self._keep_sweeping()
        try:
            if self._draining:
                raise DrainingError("the service is stopping; ask again in a moment")
            answer = await self._route(request)
        except Exception as exc:
            error = error_of(exc)
            if error is not exc:
                logger.exception("inference %s failed unexpectedly", request.request_id)
            self._account.failed(request, error, time.perf_counter() - started)
            raise error from exc
        seconds = time.perf_counter() - started
        self._account.succeeded(request, answer, seconds)
        return success_envelope(request, answer, seconds)

    def events(self, request: InferenceRequest) -> AsyncGenerator[list[JsonObject], None]:
        """Yields the pieces of an answer and then its envelope; see `follow`. Runs on the service's loop."""
        return follow(self.execute, request)

    async def ahealth(self) -> JsonObject:
        """Returns what `/inference/health` answers."""
        dependencies = await self._monitor.report()
        degraded = any(entry["degrades"] for entry in dependencies.values())
        return {
            "status": "degraded" if degraded else "healthy",
            "components": {
                "manager": not self._draining,
                "router": bool(self.router.routes()),
                "cache": self._sweeper is None or not self._sweeper.done(),
            },
            "dependencies": {
                name: {key: value for key, value in entry.items() if key != "degrades"}
                for name, entry in dependencies.items()
            },
            "timestamp": time.time(),
        }

    async def astats(self) -> JsonObject:
        """Returns what `/inference/stats` answers."""
        models = self._stats.models()
        for entry in self.cache.entries():
            versions = models.setdefault(entry.model.name, {}).setdefault("loaded", [])
            versions.append(reporting.loaded_model(self.cache, entry))
        return {
            **self._stats.totals(),
            "cache_hit_rate": self.cache.hit_rate,
            "cached_models": len(self.cache),
            "tasks": {
                task: {"handlers": self._registry.tasks().get(task, {}), "engines": engines}
                for task, engines in self.router.routes().items()
            },
            "models": models,
            "result_cache": self.results.stats(),
            "memory": await in_thread(self.admission.report),
            "decoders": self.media.pool.state(),
            "preloader": {"state": self.launcher.preloader.state, "pid": self.launcher.preloader.pid},
        }

    async def aclear_cache(self) -> int:
        """Like `clear_cache`, awaited on the service's loop."""
        await self.results.clear()
        return await self.cache.clear()

    async def readiness(self, model_name: str | None) -> tuple[bool, str]:
        """Returns whether the service, or one model, can take requests, and why (not).

        Raises `ModelNotFoundError` for a model that nobody registered.
        """
        if self._draining:
            return False, "the service is stopping"
        if model_name is not None:
            return await self._model_readiness(model_name)
        reasons = [await self._required_readiness(name) for name in self.settings.required_models]
        ready = all(ok for ok, _ in reasons)
        return ready, "; ".join(why for ok, why in reasons if not ok) or "the service takes requests"

    async def ainfer_here(
        self,
        task: str,
        engine: str,
        model_name: str,
        data: JsonObject,
        options: JsonObject | None,
        raise_on_error: bool,
    ) -> JsonObject:
        """What `infer` and `ainfer` run on the inference loop."""
        request_id = uuid.uuid4().hex
        try:
            check_types(task, engine, model_name, data, options)
            if options and options.get("stream") is True:
                raise InvalidInputError("option 'stream': inference_manager.stream(…) and astream(…) give pieces")
            request = InferenceRequest(task, engine, model_name, data, options or {}, request_id, trusted=True)
            return await self.execute(request)
        except PlatformError as error:
            if raise_on_error:
                raise
            return failure_envelope(error, request_id, task=task, engine=engine, model_name=model_name)

    async def _events_here(
        self,
        task: str,
        engine: str,
        model_name: str,
        data: JsonObject,
        options: JsonObject | None,
        raise_on_error: bool,
    ) -> AsyncGenerator[JsonObject, None]:
        """What `stream` and `astream` run on the inference loop."""
        request_id = uuid.uuid4().hex
        try:
            check_types(task, engine, model_name, data, options)
            request = InferenceRequest(task, engine, model_name, data, options or {}, request_id, trusted=True)
            async with aclosing(self.events(request)) as events:
                async for together in events:
                    for event in together:
                        yield event
        except PlatformError as error:
            if raise_on_error:
                raise
            failure = failure_envelope(error, request_id, task=task, engine=engine, model_name=model_name)
            yield {"type": "error", **failure}

    # ------------------------------------------------------------------ inside

    def _warm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the preloader with what the production versions need; runs in a thread."""
        paths: dict[str, list[Path]] = {}
        for version in self._models.production_versions():
            if version.engine:
                known = paths.setdefault(version.engine, [])
                path = self._models.local_folder(version)  # None before its first request: in the store alone
                known += [] if path is None else [path]
        modules: list[str] = []
        for name, engine_class in self._registry.engines().items():
            if name in paths or self.settings.workers.preload == "always":
                modules += engine_class().preload_modules(paths.get(name, []))
        if modules:
            loop.call_soon_threadsafe(self.launcher.warm, modules)

    def hot_swap(
        self, plan: Sequence[Replacement], switch: Switch, undo: Callable[[], None], *, allow_downtime: bool
    ) -> tuple[RegisteredVersion, SwapReport]:
        """Brings the next versions of a transition up before it switches; see `src.core.transition.HotSwap`."""
        if not self._loop.started:
            return without_models(plan, switch, undo, allow_downtime=allow_downtime)
        return self._loop.run(self._swapper.swap(plan, switch, undo, allow_downtime=allow_downtime))

    def _keep_sweeping(self) -> None:
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self.cache.sweep_forever())

    async def _cached_models(self) -> list[JsonObject]:
        return reporting.cached_models(self.cache)

    async def _required_readiness(self, name: str) -> tuple[bool, str]:
        try:
            return await self._model_readiness(name)
        except PlatformError as exc:
            return False, exc.message

    async def _model_readiness(self, name: str) -> tuple[bool, str]:
        resolution = await in_thread(lambda: self._models.registry.resolve(name))
        return reporting.readiness(self.cache, name, resolution.registered)

    def _forked(self) -> None:
        """Makes the copy of this manager in a forked process usable: its threads and workers are the parent's."""
        self._forget_parts()
        self._sweeper = None
        self._models.forked()


async def _next_of(events: AsyncGenerator[JsonObject, None]) -> JsonObject | None:
    return await anext(events, None)
