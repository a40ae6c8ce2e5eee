"""ModelHost: one engine, one handler, one loaded model. It is what runs inside every worker."""

import importlib
import os
import sys
import sysconfig
import time
from typing import Any

from src.core.errors import EngineError, PlatformError
from src.inference.engines.base import BaseEngine, stoppable
from src.inference.models.base import BaseModelHandler
from src.inference.types import JsonObject, StopCheck
from src.inference.workers import failures
from src.inference.workers.base import LoadReport, LoadSpec, WorkerAnswer


class NotImportableError(Exception):
    """A class exists only in the process that made it."""


class ModelHost:
    """Loads the model of a spec and answers requests with it, one at a time."""

    def __init__(self, spec: LoadSpec, engine_class: type[BaseEngine], handler_class: type[BaseModelHandler]) -> None:
        self._spec = spec
        self._classes = engine_class, handler_class
        self._engine: Any = None
        self._handler: Any = None
        self._model: Any = None

    def load(self) -> LoadReport:
        """Loads the model; raises a `PlatformError` that says why it could not."""
        spec, (engine_class, handler_class) = self._spec, self._classes
        started = time.perf_counter()
        try:
            self._handler = handler_class()
            self._engine = engine_class(spec.engine_config) if spec.engine_config else engine_class()
            self._model = self._engine.load_model(
                spec.model_name,
                model_path=spec.model_path,
                task=spec.task,
                device=spec.device,
                dtype=spec.dtype,
                tags=dict(spec.tags),
            )
            if spec.warm:
                self._engine.warm_up(self._model)
            seen = self._engine.describe(self._model)
        except Exception as exc:
            raise failures.engine_failure(exc, engine_class.__name__) from exc
        return LoadReport(
            device=seen.get("device"),
            dtype=seen.get("dtype"),
            engine_version=self._engine.version(),
            parameter_bytes=seen.get("parameter_bytes"),
            seconds=time.perf_counter() - started,
            media=seen.get("media") or {},
        )

    def infer(self, data: Any, options: JsonObject, stop: StopCheck) -> WorkerAnswer:
        """Answers one request; raises a `PlatformError`."""
        prepared = self._prepared(data, options)
        inputs, engine_options = prepared["inputs"], prepared.get("options") or {}
        try:
            with stoppable(stop):
                raw = self._engine.infer(self._model, inputs, engine_options)
        except Exception as exc:
            raise failures.engine_failure(exc, type(self._engine).__name__) from exc
        return self._finished(raw, engine_options)

    @property
    def batches(self) -> bool:
        """Whether the engine has a real `infer_batch`, better than one input after the other."""
        return self._engine is not None and type(self._engine).infer_batch is not BaseEngine.infer_batch

    def infer_batch(self, datas: list[Any], options: JsonObject, stop: StopCheck) -> list[WorkerAnswer | PlatformError]:
        """Answers several requests that share their options; one with bad input fails alone."""
        answers: list[WorkerAnswer | PlatformError] = []
        places, inputs, engine_options = [], [], options
        for place, data in enumerate(datas):
            try:
                prepared = self._prepared(data, options)
            except PlatformError as exc:
                answers.append(exc)
                continue
            answers.append(EngineError("not answered"))
            places.append(place)
            inputs.append(prepared["inputs"])
            engine_options = prepared.get("options") or {}
        try:
            with stoppable(stop):
                raws = self._engine.infer_batch(self._model, inputs, engine_options) if inputs else []
        except Exception as exc:
            raise failures.engine_failure(exc, type(self._engine).__name__) from exc
        for place, raw in zip(places, raws, strict=True):
            try:
                answers[place] = self._finished(raw, engine_options)
            except PlatformError as exc:
                answers[place] = exc
        return answers

    def unload(self) -> None:
        """Lets the model go."""
        model, self._model = self._model, None
        self._engine.unload_model(model)

    def _prepared(self, data: Any, options: JsonObject) -> JsonObject:
        try:
            prepared = self._handler.preprocess(data, options)
            if not isinstance(prepared, dict) or "inputs" not in prepared:
                raise TypeError("preprocess must return {'inputs': …, 'options': …}")
            return prepared
        except Exception as exc:
            raise failures.handler_failure(exc, type(self._handler).__name__) from exc

    def _finished(self, raw: Any, options: JsonObject) -> WorkerAnswer:
        warnings = raw.pop("warnings", []) if isinstance(raw, dict) else []
        try:
            return WorkerAnswer(self._handler.postprocess(raw, options), list(warnings))
        except PlatformError:
            raise
        except Exception as exc:
            # The input was fine: what the engine made of it is not.
            raise failures.engine_failure(exc, type(self._handler).__name__) from exc


def class_reference(cls: type) -> str | None:
    """Returns `module:qualified name` of a class that another process can import, else None."""
    module = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        return None
    if getattr(module, "__spec__", None) is None or getattr(module, "__file__", None) is None:
        return None
    return f"{cls.__module__}:{cls.__qualname__}"


def import_class(reference: str) -> Any:
    """Returns the class behind a reference; raises `NotImportableError`."""
    module_name, _, qualified = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise NotImportableError(f"{reference}: {exc}") from exc
    return found


def import_path() -> list[str]:
    """Returns this process's own module search path, without what every interpreter has."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return [os.path.abspath(entry) for entry in sys.path if entry not in own]
