"""ModelCatalog: a model's name → what an engine can load or ask its server for."""

from collections.abc import Callable
from pathlib import Path

from src.core.errors import InvalidInputError, ModelNotFoundError
from src.core.mlflow_registry import RegisteredVersion, Resolution
from src.core.model_manager import ModelManager
from src.core.threads import in_background, in_thread
from src.inference.engines.base import BaseEngine
from src.inference.types import ServableModel

_REMEMBERED = 1000


def servable(
    registered: RegisteredVersion, *, alias: str | None = None, warnings: tuple[str, ...] = ()
) -> ServableModel:
    """Returns a registered version as an engine takes it."""
    return ServableModel(
        name=registered.name,
        key=registered.digest or registered.source or f"{registered.name}@{registered.version}",
        registered=registered,
        alias=alias,
        warnings=warnings,
    )


class ModelCatalog:
    """Resolves names through the registry's cache, and puts files in place when they are to be loaded."""

    def __init__(self, models: ModelManager, canonical_task: Callable[[str], str]) -> None:
        self._models = models
        self._canonical_task = canonical_task
        self._judged: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self._refreshing: set[str] = set()
        self._located: dict[tuple[str, str, str], tuple[Resolution, ServableModel]] = {}

    async def locate(self, name: str, task: str, engine_name: str, engine: BaseEngine) -> ServableModel:
        """Returns the model; raises `ModelNotFoundError`, or `InvalidInputError` for the wrong engine or task."""
        try:
            resolution = await self._resolve(name)
        except ModelNotFoundError as exc:
            return await self._unregistered(name, engine_name, engine, exc)
        asked = (name, task, engine_name)
        last = self._located.get(asked)
        if last is not None and last[0] is resolution:
            return last[1]
        model = await self._checked(resolution, task, engine_name, engine)
        if len(self._located) >= _REMEMBERED:
            self._located.clear()
        self._located[asked] = resolution, model
        return model

    async def _checked(self, resolution: Resolution, task: str, engine_name: str, engine: BaseEngine) -> ServableModel:
        registered = resolution.registered
        if registered.engine and registered.engine != engine_name:
            raise InvalidInputError(
                f"Model '{registered.name}' version {registered.version} is registered for engine "
                f"'{registered.engine}', not '{engine_name}': ask with \"engine\": \"{registered.engine}\"",
                details={"registered_engine": registered.engine},
            )
        warnings = (*resolution.warnings, *await self._task_warnings(registered, task, engine))
        return servable(registered, alias=resolution.alias, warnings=warnings)

    async def files(self, model: ServableModel) -> Path | None:
        """Returns the folder that holds a model's files, verified; None where it has none."""
        registered = model.registered
        if registered is None:
            return None
        return await in_thread(lambda: self._models.files(registered))

    async def _resolve(self, name: str) -> Resolution:
        registry = self._models.registry
        if (current := registry.current(name)) is not None:
            return current
        found = registry.cached(name)
        if found is None:
            return await in_thread(lambda: registry.resolve(name))
        if not registry.stale(name):
            return found
        if self._models.settings.registry_is_embedded:
            # The registry's file has changed: looking costs milliseconds, and whoever registered expects it.
            return await in_thread(lambda: registry.resolve(name))
        if name not in self._refreshing:
            self._refreshing.add(name)
            in_background(lambda: registry.refresh(name), lambda: self._refreshing.discard(name))
        return found

    async def _unregistered(
        self, name: str, engine_name: str, engine: BaseEngine, missing: ModelNotFoundError
    ) -> ServableModel:
        if engine.is_network:
            if await engine.lists(name):
                return ServableModel(name=name, key=name)
            raise ModelNotFoundError(
                f"{missing.message}; engine '{engine_name}' does not have it either", details=missing.details
            ) from missing
        if engine.needs_registered_model:
            raise missing
        warning = f"model '{name}' is not registered: engine '{engine_name}' serves it by itself"
        return ServableModel(name=name, key=name, warnings=(warning,))

    async def _task_warnings(self, registered: RegisteredVersion, task: str, engine: BaseEngine) -> tuple[str, ...]:
        if not registered.task or self._canonical_task(registered.task) == task:
            return ()
        asked = (registered.name, registered.version, task)
        if asked not in self._judged:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[asked] = await self._judge(registered, task, engine)
        return self._judged[asked]

    async def _judge(self, registered: RegisteredVersion, task: str, engine: BaseEngine) -> tuple[str, ...]:
        path = None if engine.is_network else await in_thread(lambda: self._models.files(registered))
        able = engine.tasks_for(path) if path is not None else None
        if able is not None and task in engine.supported_tasks and task not in able:
            raise InvalidInputError(
                f"Model '{registered.name}' is registered for task '{registered.task}' and cannot do '{task}'"
                + (f"; it can do: {', '.join(able)}" if able else ""),
                details={"registered_task": registered.task, "tasks": able},
            )
        return (f"model '{registered.name}' is registered for task '{registered.task}', asked for '{task}'",)
