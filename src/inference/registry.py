"""model_registry: handlers and engines by name. Built-ins enter by the same doors as plugins."""

import difflib
import fnmatch
import logging
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points

from src.core.errors import ConfigurationError, ValidationError
from src.inference.engines.base import BaseEngine
from src.inference.engines.ollama import OllamaEngine
from src.inference.engines.transformers import TransformersEngine
from src.inference.models.base import BaseModelHandler

logger = logging.getLogger(__name__)

HANDLERS_GROUP = "aiml.handlers"
ENGINES_GROUP = "aiml.engines"
DEFAULT_PATTERN = "default"

HandlerClass = type[BaseModelHandler]
EngineClass = type[BaseEngine]


class ModelRegistry:
    """Holds handler classes per task and model-name pattern, and engine classes per name."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, HandlerClass]] = {}
        self._engines: dict[str, EngineClass] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register_handler_manually(self, task: str, model_pattern: str, handler_class: HandlerClass) -> None:
        """Registers a handler for a task and the model names that match a shell pattern.

        `model_pattern="default"` stands for every name that no other pattern matches.
        """
        if not (isinstance(handler_class, type) and issubclass(handler_class, BaseModelHandler)):
            raise ConfigurationError(f"{handler_class!r} is not a subclass of BaseModelHandler")
        # What is registered by hand comes after built-ins and plugins, and so takes their place.
        self.discover()
        with self._lock:
            self._handlers.setdefault(task, {})[model_pattern] = handler_class

    def register_engine(self, name: str, engine_class: EngineClass) -> None:
        """Registers an engine under a name; the tasks it serves are its `supported_tasks`."""
        if not (isinstance(engine_class, type) and issubclass(engine_class, BaseEngine)):
            raise ConfigurationError(f"{engine_class!r} is not a subclass of BaseEngine")
        self.discover()
        with self._lock:
            self._engines[name] = engine_class

    def handler_for(self, task: str, model_name: str) -> HandlerClass:
        """Returns the handler class; raises `ValidationError` that lists the tasks there are."""
        patterns = self._patterns(task)
        if patterns is None:
            raise unknown_name("task", task, list(self.tasks()))
        name = model_name.partition("@")[0]  # a pattern is for a model, whichever version is asked for
        matching = [p for p in list(patterns) if p != DEFAULT_PATTERN and fnmatch.fnmatchcase(name, p)]
        if matching:
            return patterns[max(matching, key=len)]
        if DEFAULT_PATTERN in patterns:
            return patterns[DEFAULT_PATTERN]
        raise ValidationError(
            f"no handler of task '{task}' takes the model '{model_name}' (patterns: {list(patterns)})"
        )

    def tasks(self) -> dict[str, dict[str, str]]:
        """Returns every registered task with its handlers' class names by model pattern."""
        self.discover()
        self._scan_models_package()
        with self._lock:
            return {t: {p: c.__name__ for p, c in found.items()} for t, found in sorted(self._handlers.items())}

    def engines(self) -> dict[str, EngineClass]:
        """Returns every registered engine class by name."""
        self.discover()
        with self._lock:
            return dict(self._engines)

    def discover(self) -> None:
        """Finds the built-ins and the plugins of installed packages, once."""
        with self._lock:
            if self._discovered:
                return
            self._discovered = True
            self._engines.setdefault("ollama", OllamaEngine)
            self._engines.setdefault("transformers", TransformersEngine)
            self._scan_models_package()
            for name, loaded in _plugins(HANDLERS_GROUP):
                self._from_plugin(name, loaded)
            for name, loaded in _plugins(ENGINES_GROUP):
                self._from_plugin(name, loaded)

    def _from_plugin(self, name: str, loaded: object) -> None:
        try:
            if isinstance(loaded, type) and issubclass(loaded, BaseModelHandler):
                self.register_handler_manually(loaded.task_name(), DEFAULT_PATTERN, loaded)
            elif isinstance(loaded, type) and issubclass(loaded, BaseEngine):
                self.register_engine(loaded.name or name, loaded)
            else:
                raise ConfigurationError(f"{loaded!r} is neither a handler nor an engine class")
        except Exception:
            logger.exception("plugin %s is skipped: it could not be registered", name)

    def _patterns(self, task: str) -> dict[str, HandlerClass] | None:
        found = self._handlers.get(task)
        if found is None:
            self.discover()
            self._scan_models_package()
            found = self._handlers.get(task)
        return found

    def _scan_models_package(self) -> None:
        from src.inference import models

        for value in list(vars(models).values()):
            if isinstance(value, type) and issubclass(value, BaseModelHandler) and value is not BaseModelHandler:
                with self._lock:
                    self._handlers.setdefault(value.task_name(), {}).setdefault(DEFAULT_PATTERN, value)


def _plugins(group: str) -> Iterator[tuple[str, object]]:
    for entry in entry_points(group=group):
        try:
            yield entry.name, entry.load()
        except Exception:
            logger.exception("plugin %s is skipped: it could not be imported", entry.value)


def unknown_name(kind: str, name: str, known: list[str]) -> ValidationError:
    """Returns the error for a task or an engine that does not exist, with the nearest one that does."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean '{close[0]}'?" if close else ""
    return ValidationError(f"unknown {kind} '{name}'{hint} (there are: {', '.join(sorted(known))})")


model_registry = ModelRegistry()
