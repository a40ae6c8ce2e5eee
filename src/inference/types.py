"""The vocabulary of inference: request, result, provenance. No logic beyond building the envelopes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from src.core.errors import PlatformError
from src.core.registry.versions import RegisteredVersion

JsonObject = dict[str, Any]
StopCheck = Callable[[], bool]
OnDelta = Callable[[str], None]


class InferenceRequest(NamedTuple):
    """One request as its caller wrote it.

    `trusted`: the caller is in this process, and may name any file and hand over objects of Pillow and numpy.
    `on_delta`: called on the event loop with each piece of text of the answer, as it comes.
    """

    task: str
    engine: str
    model_name: str
    data: JsonObject
    options: JsonObject
    request_id: str
    trusted: bool = False
    on_delta: OnDelta | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Exactly what produced an answer.

    `commit` is the version store's, `digest` the content digest of the model's files (or what Ollama
    reports), `source` the URI that the registry holds. None: does not apply, or is not known.
    """

    registered_name: str | None
    version: str | None
    alias: str | None
    source: str | None
    commit: str | None
    digest: str | None
    engine: str
    engine_version: str | None
    device: str | None = None
    dtype: str | None = None
    ollama_model: str | None = None
    _json: JsonObject = field(default_factory=dict, init=False, repr=False, compare=False)

    def as_json(self) -> JsonObject:
        """Returns the fields as JSON values, in an object of the caller's own."""
        if not self._json:
            self._json.update(asdict(self))
            del self._json["_json"]
        return self._json.copy()


@dataclass(frozen=True, slots=True)
class ServableModel:
    """A model name resolved to what an engine can load, or ask its server for.

    `key` names the bytes behind it: equal keys are the same model. `registered` is None for a name
    that only the engine knows.
    """

    name: str
    key: str
    registered: RegisteredVersion | None = None
    alias: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def tags(self) -> Mapping[str, str]:
        """The registered version's tags."""
        return self.registered.tags if self.registered else {}


@dataclass(slots=True)
class Answer:
    """What an executor made of a request; `cached`: of an earlier one that asked the same."""

    result: JsonObject
    provenance: Provenance
    warnings: list[str] = field(default_factory=list)
    cached: bool = False


def success_envelope(request: InferenceRequest, answer: Answer, seconds: float) -> JsonObject:
    """Returns the documented answer; `processing_time` in seconds, `timestamp` in seconds since 1970."""
    envelope: JsonObject = {
        "success": True,
        "result": answer.result,
        "task": request.task,
        "engine": request.engine,
        "model_name": request.model_name,
        "processing_time": seconds,
        "timestamp": time.time(),
        "request_id": request.request_id,
        "provenance": answer.provenance.as_json(),
    }
    if answer.cached:
        envelope["cached"] = True
    if answer.warnings:
        envelope["warnings"] = answer.warnings
    return envelope


def failure_envelope(error: PlatformError, request_id: str, **echo: Any) -> JsonObject:
    """Returns the documented failure; `echo` holds task, engine and model_name as they were asked."""
    envelope: JsonObject = {
        "success": False,
        "error": error.message,
        "error_type": error.error_type,
        "task": echo.get("task"),
        "engine": echo.get("engine"),
        "model_name": echo.get("model_name"),
        "timestamp": time.time(),
        "request_id": request_id,
        "retryable": error.retryable,
    }
    if error.details:
        envelope["details"] = error.details
    return envelope
