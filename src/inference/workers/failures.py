"""Errors on their way: foreign exceptions become ours, and ours travel between processes by name."""

from typing import Any

from src.core import errors
from src.core.errors import (
    EngineError,
    InferenceTimeoutError,
    InsufficientMemoryError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
)
from src.inference.types import JsonObject

MEMORY_ADVICE = (
    "Use the CPU (options: device 'cpu'), clear the cache (POST /inference/cache/clear), "
    "or take a smaller or quantized model."
)


def handler_failure(exc: Exception, handler: str) -> PlatformError:
    """Returns our error for one raised by a handler: its ValueError is the input's fault."""
    if isinstance(exc, PlatformError):
        return exc
    if isinstance(exc, ValueError):
        return InvalidInputError(str(exc) or "Invalid input format")
    return EngineError(f"handler {handler} failed: {_words(exc)}")


def engine_failure(exc: BaseException, engine: str) -> PlatformError:
    """Returns our error for one raised by an engine."""
    if isinstance(exc, PlatformError):
        return exc
    if is_out_of_memory(exc):
        return InsufficientMemoryError(f"Out of memory: {_words(exc)}. {MEMORY_ADVICE}")
    # The hub's client says so when a library wants a file that the model's folder lacks: the model is there.
    if isinstance(exc, FileNotFoundError) and type(exc).__name__ != "LocalEntryNotFoundError":
        return ModelNotFoundError(_words(exc))
    return EngineError(f"engine {engine} failed: {_words(exc)}")


def timed_out(seconds: float) -> InferenceTimeoutError:
    """Returns the error of a request whose time has passed."""
    return InferenceTimeoutError(
        f"no answer within {seconds:g} s; the work was stopped. Raise the option 'timeout', or ask for less",
        details={"timeout_seconds": seconds},
    )


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the host or on a device."""
    if isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError":
        return True
    return isinstance(exc, RuntimeError) and ("out of memory" in str(exc) or "can't allocate memory" in str(exc))


def to_json(error: PlatformError) -> JsonObject:
    """Returns an error as JSON values."""
    return {"class": type(error).__name__, "message": error.message, "details": error.details}


def from_json(value: JsonObject) -> PlatformError:
    """Returns the error that `to_json` wrote."""
    found: Any = getattr(errors, str(value.get("class")), EngineError)
    if not (isinstance(found, type) and issubclass(found, PlatformError)):
        found = EngineError
    error: PlatformError = found(str(value.get("message")), details=dict(value.get("details") or {}))
    return error


def _words(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
