"""The parts of an InferenceManager: each is made when it is first needed, and stays."""

from functools import cached_property

from src.core.config import Settings
from src.core.gpu_manager import GpuManager
from src.core.model_manager import ModelManager
from src.inference.admission import PeakRecords
from src.inference.cache import ModelCache
from src.inference.catalog import ModelCatalog
from src.inference.executor import ModelExecutor, Runtime
from src.inference.health import DependencyMonitor
from src.inference.hot_swap import HotSwapper
from src.inference.intake import Intake
from src.inference.memory_admission import MemoryAdmission
from src.inference.model_settings import settings_of
from src.inference.page_words import PageReader
from src.inference.registry import EngineClass, ModelRegistry
from src.inference.results import ResultCache
from src.inference.results_reuse import ResultReuse
from src.inference.router import TaskRouter, canonical_task
from src.inference.runtime_loop import RuntimeLoop
from src.inference.suitability import EngineJudge
from src.inference.types import Answer, InferenceRequest
from src.inference.workers.launching import Launcher
from src.inference.workers.supervision import Supervisor
from src.media.loader import MediaLoader, make_loader

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
    "results",
)


class ManagerParts:
    """What a manager is made of, over one registry of models and one of handlers and engines."""

    def __init__(self, models: ModelManager, registry: ModelRegistry) -> None:
        self._models = models
        self._registry = registry
        self._loop = RuntimeLoop()

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
            own=lambda model: settings_of(model, self.settings),
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
        return DependencyMonitor(self._models, self.router, self.results)

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
            ResultReuse(self.results),
        )

    @cached_property
    def results(self) -> ResultCache:
        """Results that are kept for who asks the same again."""
        return ResultCache(self.settings.results)

    @cached_property
    def media(self) -> MediaLoader:
        """What fetches and decodes media."""
        return make_loader(self.settings)

    def _make_executor(self, task: str, engine: str, engine_class: EngineClass) -> ModelExecutor:
        return ModelExecutor(task, engine, engine_class, self._runtime)

    @cached_property
    def judge(self) -> EngineJudge:
        """What says which engine can load a model's files."""
        return EngineJudge(self.router)

    @cached_property
    def _swapper(self) -> HotSwapper:
        return HotSwapper(self.router, self.cache)

    @cached_property
    def router(self) -> TaskRouter:
        """The TaskRouter."""
        return TaskRouter(
            self._registry, self._make_executor, lambda: self._loop.run(self._free_all()) if self._loop.started else 0
        )

    async def _route(self, request: InferenceRequest) -> Answer:
        return await self.router.route(request.task, request.engine, request.model_name).execute(request)

    async def _free_all(self) -> int:
        """Unloads every model, closes what engines hold open and returns how many models there were."""
        cleared = await self.cache.clear()
        await self.router.retire_executors()
        return cleared

    def _forget_parts(self) -> None:
        """Drops the parts without a word to anybody: in a forked process they belong to the parent."""
        if "cache" in self.__dict__:
            self.cache.abandon()
        self._loop.reset()
        if "launcher" in self.__dict__:
            self.launcher.preloader.abandon()
        if "media" in self.__dict__:
            self.media.pool.abandon()
        if "results" in self.__dict__:
            self.results.abandon()
        for name in _MADE_WHEN_NEEDED:
            self.__dict__.pop(name, None)
