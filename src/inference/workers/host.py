"""ModelHost: one engine, one handler, one loaded model. It is what runs inside every worker."""

import importlib
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from src.core.errors import PlatformError
from src.inference.engines.base import BaseEngine, Delta, Scheduler, emitting, stoppable
from src.inference.models.base import BaseModelHandler
from src.inference.types import JsonObject, StopCheck
from src.inference.workers import failures
from src.inference.workers.base import LoadReport, LoadSpec, WorkerAnswer


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as its handler prepared it for the engine."""

    inputs: Any
    options: JsonObject


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

    @property
    def batches(self) -> bool:
        """Whether the engine has a real `infer_batch`, better than one input after the other."""
        return self._engine is not None and type(self._engine).infer_batch is not BaseEngine.infer_batch

    def scheduler(self) -> Scheduler | None:
        """Returns what runs the model's requests together, step by step; None where nothing does."""
        found: Scheduler | None = self._engine.scheduler(self._model)
        return found

    def prepare(self, data: Any, options: JsonObject) -> Prepared:
        """Returns what the handler makes of a request; raises a `PlatformError`."""
        try:
            prepared = self._handler.preprocess(data, options)
            if not isinstance(prepared, dict) or "inputs" not in prepared:
                raise TypeError("preprocess must return {'inputs': …, 'options': …}")
        except Exception as exc:
            raise failures.handler_failure(exc, type(self._handler).__name__) from exc
        return Prepared(prepared["inputs"], prepared.get("options") or {})

    def batch_key(self, prepared: Prepared) -> Hashable | None:
        """Returns what requests must have in common to be run together; None: this one runs alone."""
        key: Hashable | None = self._engine.batch_key(self._model, prepared.inputs, prepared.options)
        return key

    def infer(
        self, data: Any, options: JsonObject, stop: StopCheck, emit: Callable[[str], None] | None = None
    ) -> WorkerAnswer:
        """Answers one request; raises a `PlatformError`."""
        return self.run(self.prepare(data, options), stop, emit)

    def run(self, prepared: Prepared, stop: StopCheck, emit: Callable[[str], None] | None = None) -> WorkerAnswer:
        """Answers a prepared request; pieces of a streamed answer go to `emit`. Raises a `PlatformError`."""
        inputs, options = prepared.inputs, prepared.options
        try:
            with stoppable(stop), emitting(emit):
                if emit is not None and type(self._engine).stream is not BaseEngine.stream:
                    raw = _followed(self._engine.stream(self._model, inputs, options), emit)
                else:
                    raw = self._engine.infer(self._model, inputs, options)
        except Exception as exc:
            raise failures.engine_failure(exc, type(self._engine).__name__) from exc
        return self.finish(raw, options)

    def run_together(self, group: Sequence[Prepared], stop: StopCheck) -> list[WorkerAnswer | PlatformError]:
        """Answers requests of equal options and batch keys; one with bad input fails alone."""
        options = group[0].options
        try:
            with stoppable(stop):
                raws = self._engine.infer_batch(self._model, [each.inputs for each in group], options)
            if len(raws) != len(group):
                raise ValueError(f"infer_batch gave {len(raws)} answers to {len(group)} inputs")
        except Exception as exc:
            raise failures.engine_failure(exc, type(self._engine).__name__) from exc
        return [self.settled(raw, options) for raw in raws]

    def settled(self, raw: Any, options: JsonObject) -> WorkerAnswer | PlatformError:
        """Returns the answer that the handler makes of a raw one, or the error that it is."""
        if isinstance(raw, Exception):
            return failures.engine_failure(raw, type(self._engine).__name__)
        try:
            return self.finish(raw, options)
        except PlatformError as exc:
            return exc

    def unload(self) -> None:
        """Lets the model go."""
        model, self._model = self._model, None
        self._engine.unload_model(model)

    def finish(self, raw: Any, options: JsonObject) -> WorkerAnswer:
        """Returns the answer that the handler makes of a raw one; raises a `PlatformError`."""
        warnings = raw.pop("warnings", []) if isinstance(raw, dict) else []
        try:
            return WorkerAnswer(self._handler.postprocess(raw, options), list(warnings))
        except PlatformError:
            raise
        except Exception as exc:
            # The input was fine: what the engine made of it is not.
            raise failures.engine_failure(exc, type(self._handler).__name__) from exc


def _followed(pieces: Iterator[Any], emit: Callable[[str], None]) -> Any:
    raw: Any = None
    for piece in pieces:
        if isinstance(piece, Delta):
            emit(piece.text)
        else:
            raw = piece
    return raw


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
