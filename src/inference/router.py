"""TaskRouter: (task, engine) → the ModelExecutor that is kept for it."""

import logging
import threading
from collections.abc import Callable
from functools import cached_property

from src.core.errors import ValidationError
from src.inference.executor import ModelExecutor
from src.inference.registry import EngineClass, HandlerClass, ModelRegistry, unknown_name

logger = logging.getLogger(__name__)

TASK_ALIASES = {"text-generation-ollama": ("text-generation", "ollama")}
"""Task as asked → the task it means, on the one engine that it is accepted for."""


def canonical_task(task: str) -> str:
    """Returns the task that a name stands for."""
    return TASK_ALIASES[task][0] if task in TASK_ALIASES else task


class TaskRouter:
    """Keeps one executor per (task, engine). `_task_engine_mapping` is documented: users add engines to it."""

    def __init__(
        self,
        registry: ModelRegistry,
        make_executor: Callable[[str, str, EngineClass], ModelExecutor],
        clear: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._make_executor = make_executor
        self._clear = clear
        self._executors: dict[tuple[str, str], ModelExecutor] = {}
        self._lock = threading.Lock()

    @cached_property
    def _task_engine_mapping(self) -> dict[str, dict[str, EngineClass]]:
        mapping: dict[str, dict[str, EngineClass]] = {}
        for name, engine_class in self._registry.engines().items():
            try:
                tasks = engine_class().supported_tasks
            except Exception:
                logger.exception("engine %s is left out of the routes: it cannot be made", name)
                continue
            for task in tasks:
                mapping.setdefault(task, {})[name] = engine_class
        return mapping

    def route(self, task: str, engine: str, model_name: str | None = None) -> ModelExecutor:
        """Returns the executor; raises `ValidationError` that lists what there is."""
        canonical = self._canonical(task, engine)
        engine_class = self._engine_class(canonical, engine)
        key = (canonical, engine)
        executor = self._executors.get(key)
        if executor is None or executor.engine_class is not engine_class:
            with self._lock:
                executor = self._executors.get(key)
                if executor is None or executor.engine_class is not engine_class:
                    executor = self._executors[key] = self._make_executor(canonical, engine, engine_class)
        return executor

    def handler_for(self, task: str, engine: str, model_name: str) -> HandlerClass:
        """Returns the handler class for a request; raises `ValidationError` that lists what there is."""
        return self._registry.handler_for(self._canonical(task, engine), model_name)

    def clear_engines(self) -> int:
        """Unloads every model and drops every executor; returns how many models were loaded."""
        cleared = self._clear()
        with self._lock:
            self._executors.clear()
        return cleared

    async def retire_executors(self) -> None:
        """Closes what every engine holds open, once no request uses it."""
        for executor in self.executors():
            await executor.retire()

    def executors(self) -> list[ModelExecutor]:
        """Returns the executors made so far."""
        return list(self._executors.values())

    def routes(self) -> dict[str, list[str]]:
        """Returns the engines of every task."""
        tasks = {*self._task_engine_mapping, *self._registry.tasks()}
        return {task: sorted(self._task_engine_mapping.get(task, {})) for task in sorted(tasks)}

    def _canonical(self, task: str, engine: str) -> str:
        if task not in TASK_ALIASES:
            return task
        canonical, only = TASK_ALIASES[task]
        if engine != only:
            raise ValidationError(f"task '{task}' is for engine '{only}', not '{engine}': ask for task '{canonical}'")
        return canonical

    def _engine_class(self, task: str, engine: str) -> EngineClass:
        engines = self._task_engine_mapping.get(task)
        if engines is not None and engine in engines:
            return engines[engine]
        known = self._registry.engines()
        handled = self._registry.tasks()
        if engines is None and task not in handled:
            raise unknown_name("task", task, sorted({*handled, *self._task_engine_mapping, *TASK_ALIASES}))
        if engine not in known and engine not in (engines or {}):
            raise unknown_name("engine", engine, sorted({*known, *(engines or {})}))
        if engine in known and task in known[engine]().supported_tasks:
            # Registered after the mapping was made.
            return self._task_engine_mapping.setdefault(task, {}).setdefault(engine, known[engine])
        if engines:
            raise ValidationError(
                f"engine '{engine}' does not serve task '{task}' (engines that do: {', '.join(sorted(engines))})"
            )
        # A handler of somebody's own task, without an entry in the mapping: the engine will see what it can do.
        return known[engine]
