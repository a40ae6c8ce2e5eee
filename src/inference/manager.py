"""InferenceManager: the façade of inference, for HTTP and for Python."""

import asyncio
import gc
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from src.core.config import Settings
from src.core.errors import DrainingError, PlatformError
from src.core.gpu_manager import GpuManager
from src.core.model_manager import ModelManager
from src.core.registry.versions import RegisteredVersion
from src.core.threads import in_background, in_thread
from src.core.transition import Replacement, SwapReport, Switch, without_models
from src.inference import reporting
from src.inference.accounting import RequestAccount
from src.inference.admission import PeakRecords
from src.inference.cache import ModelCache
from src.inference.catalog import ModelCatalog
from src.inference.executor import ModelExecutor, Runtime, error_of
from src.inference.health import DependencyMonitor
from src.inference.hot_swap import HotSwapper
from src.inference.intake import Intake
from src.inference.memory_admission import MemoryAdmission
from src.inference.page_words import PageReader
from src.inference.registry import EngineClass, ModelRegistry
from src.inference.request_shape import check_types
from src.inference.router import TaskRouter, canonical_task
from src.inference.runtime_loop import RuntimeLoop
from src.inference.stats import InferenceStats
from src.inference.suitability import EngineJudge
from src.inference.types import Answer, InferenceRequest, JsonObject, failure_envelope, success_envelope
from src.inference.workers import buffers
from src.inference.workers.launching import Launcher
from src.inference.workers.supervision import Supervisor
from src.media.loader import MediaLoader, make_loader

logger = logging.getLogger(__name__)


_MADE_WHEN_NEEDED = (
    "cache",
    "launcher",
    "admission",
    "router",
    "judge",
    "_catalog",
    "_monitor",
    "_runtime",
    "_swapper",
    "media",
)


def settle_memory() -> None:
    """Has the garbage collector leave alone what is alive now, which is there to stay."""
    gc.collect()
    gc.freeze()


class InferenceManager:
    """Serves every task on every engine.

    It constructs empty and cheap. The blocking methods may be called from any thread, the async ones
    from any event loop: the work itself runs on one loop, the service's own or one in a daemon thread.
    """

    def __init__(self, models: ModelManager, registry: ModelRegistry) -> None:
        self._models = models
        self._registry = registry
        self._loop = RuntimeLoop()
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

    @cached_property
    def router(self) -> TaskRouter:
        """The TaskRouter."""
        return TaskRouter(
            self._registry, self._make_executor, lambda: self._loop.run(self._free_all()) if self._loop.started else 0
        )

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
        if "media" in self.__dict__:
            await self.__dict__.pop("media").close()

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
            "memory": await in_thread(self.admission.report),
            "decoders": self.media.pool.state(),
            "preloader": {"state": self.launcher.preloader.state, "pid": self.launcher.preloader.pid},
        }

    async def aclear_cache(self) -> int:
        """Like `clear_cache`, awaited on the service's loop."""
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
            request = InferenceRequest(task, engine, model_name, data, options or {}, request_id, trusted=True)
            return await self.execute(request)
        except PlatformError as error:
            if raise_on_error:
                raise
            return failure_envelope(error, request_id, task=task, engine=engine, model_name=model_name)

    # ------------------------------------------------------------------ inside

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._models.settings

    @cached_property
    def cache(self) -> ModelCache:
        """The loaded models."""
        return ModelCache(
            self.settings.cache,
            supervisor=Supervisor(self.settings.workers),
            admission=self.admission,
            max_waiting=self.settings.queue.max_size,
        )

    @cached_property
    def admission(self) -> MemoryAdmission:
        """Who is let into memory."""
        return MemoryAdmission(
            GpuManager(budget_bytes=self.settings.memory_budget),
            PeakRecords(self.settings.data_dir / "memory-peaks.json"),
            self._catalog.files,
            device=self.settings.transformers.device,
            dtype=self.settings.transformers.torch_dtype,
            forks=lambda: self.launcher.preloader.state in ("starting", "ready"),
        )

    @cached_property
    def _catalog(self) -> ModelCatalog:
        return ModelCatalog(self._models, canonical_task)

    @cached_property
    def launcher(self) -> Launcher:
        """What starts worker processes."""
        return Launcher(self.settings.workers.preload)

    @cached_property
    def _monitor(self) -> DependencyMonitor:
        return DependencyMonitor(self._models, self.router)

    @cached_property
    def _runtime(self) -> Runtime:
        return Runtime(
            self.settings,
            self._registry,
            self._catalog,
            self.cache,
            self.launcher,
            Intake(lambda: self.media, PageReader(self.settings.media, self._route)),
            self.admission.on_host,
        )

    async def _route(self, request: InferenceRequest) -> Answer:
        return await self.router.route(request.task, request.engine, request.model_name).execute(request)

    @cached_property
    def media(self) -> MediaLoader:
        """What fetches and decodes media."""
        return make_loader(self.settings)

    def _warm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the preloader with what the production versions need; runs in a thread."""
        paths: dict[str, list[Path]] = {}
        for version in self._models.production_versions():
            path = self._models.local_folder(version)
            if version.engine and path is not None:
                paths.setdefault(version.engine, []).append(path)
        modules: list[str] = []
        for name, engine_class in self._registry.engines().items():
            if name in paths or self.settings.workers.preload == "always":
                modules += engine_class().preload_modules(paths.get(name, []))
        if modules:
            loop.call_soon_threadsafe(self.launcher.warm, modules)

    def _make_executor(self, task: str, engine: str, engine_class: EngineClass) -> ModelExecutor:
        return ModelExecutor(task, engine, engine_class, self._runtime)

    async def _free_all(self) -> int:
        """Unloads every model, closes what engines hold open and returns how many models there were."""
        cleared = await self.cache.clear()
        await self.router.retire_executors()
        return cleared

    def hot_swap(
        self, plan: Sequence[Replacement], switch: Switch, undo: Callable[[], None], *, allow_downtime: bool
    ) -> tuple[RegisteredVersion, SwapReport]:
        """Brings the next versions of a transition up before it switches; see `src.core.transition.HotSwap`."""
        if not self._loop.started:
            return without_models(plan, switch, undo, allow_downtime=allow_downtime)
        return self._loop.run(self._swapper.swap(plan, switch, undo, allow_downtime=allow_downtime))

    @cached_property
    def judge(self) -> EngineJudge:
        """What says which engine can load a model's files."""
        return EngineJudge(self.router)

    @cached_property
    def _swapper(self) -> HotSwapper:
        return HotSwapper(self.router, self.cache)

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
        if "cache" in self.__dict__:
            self.cache.abandon()
        self._loop.reset()
        self._sweeper = None
        if "launcher" in self.__dict__:
            self.launcher.preloader.abandon()
        if "media" in self.__dict__:
            self.media.pool.abandon()
        for name in _MADE_WHEN_NEEDED:
            self.__dict__.pop(name, None)
        self._models.forked()
