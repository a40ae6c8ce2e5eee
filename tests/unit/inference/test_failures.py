"""Errors on their way: foreign exceptions become ours, ours travel by name, whoever raised them is named."""

from typing import Any

import pytest

from src.core import errors
from src.core.errors import (
    CancelledError,
    EngineError,
    InsufficientMemoryError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
    ValidationError,
)
from src.inference.engines.base import BaseEngine, stop_requested
from src.inference.models.base import BaseModelHandler
from src.inference.workers import failures
from src.inference.workers.base import LoadSpec, WorkerAnswer
from src.inference.workers.host import ModelHost


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PlatformError)]


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (FileNotFoundError("weights.bin"), ModelNotFoundError, "FileNotFoundError: weights.bin"),
        (MemoryError(), InsufficientMemoryError, "Out of memory: MemoryError. "),
        (OutOfMemoryError("CUDA out of memory."), InsufficientMemoryError, "CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), InsufficientMemoryError, "allocate"),
        (RuntimeError("shape mismatch"), EngineError, "engine Custom failed: RuntimeError: shape mismatch"),
        (ValueError("odd"), EngineError, "engine Custom failed: ValueError: odd"),
        (KeyError(), EngineError, "engine Custom failed: KeyError"),
    ],
)
def test_what_an_engine_raises(raised: Exception, kind: type[PlatformError], message: str) -> None:
    error = failures.engine_failure(raised, "Custom")
    assert type(error) is kind
    assert message in error.message


@pytest.mark.parametrize("words", ["device 'cpu'", "/inference/cache/clear", "smaller or quantized"])
def test_out_of_memory_comes_with_the_documented_advice(words: str) -> None:
    assert words in failures.engine_failure(MemoryError(), "Custom").message


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("bad audio"), InvalidInputError, "bad audio"),
        (ValueError(), InvalidInputError, "Invalid input format"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), InvalidInputError, "utf-8"),
        (TypeError("odd"), EngineError, "handler Custom failed: TypeError: odd"),
    ],
)
def test_what_a_handler_raises(raised: Exception, kind: type[PlatformError], message: str) -> None:
    error = failures.handler_failure(raised, "Custom")
    assert type(error) is kind
    assert message in error.message


def test_our_own_errors_stay_as_they_are() -> None:
    error = ValidationError("x")
    assert failures.engine_failure(error, "Custom") is error
    assert failures.handler_failure(error, "Custom") is error


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_between_processes(kind: type[PlatformError]) -> None:
    sent = kind("太長", details={"prompt_tokens": 9})
    received = failures.from_json(failures.to_json(sent))
    assert type(received) is kind
    assert (received.message, received.details, received.retryable) == (sent.message, sent.details, sent.retryable)


@pytest.mark.parametrize(
    "value",
    [{"class": "Nonsense", "message": "x"}, {"class": "Any", "message": "x"}, {"message": "x", "details": None}],
)
def test_an_error_of_a_name_that_is_none_of_ours_is_the_engines(value: dict[str, Any]) -> None:
    error = failures.from_json(value)
    assert type(error) is EngineError
    assert (error.message, error.details) == ("x", {})


class ScriptedHandler(BaseModelHandler):
    """Raises, or hands on, what the test wants."""

    prepare: Any = None
    finish: Any = None

    def preprocess(self, data: Any, options: Any) -> Any:
        return self.prepare(data) if self.prepare else super().preprocess(data, options)

    def postprocess(self, result: Any, options: Any) -> Any:
        return self.finish(result) if self.finish else super().postprocess(result, options)


class ScriptedEngine(BaseEngine):
    """Raises, or gives, what the test wants."""

    loading: Any = None
    answer: Any = None

    def load_model(self, model_name: str, **kwargs: Any) -> Any:
        return self.loading(kwargs) if self.loading else "model"

    def infer(self, model: Any, inputs: Any, options: Any) -> Any:
        return self.answer(inputs) if self.answer else inputs


def raising(error: Exception) -> Any:
    def function(*_: Any) -> Any:
        raise error

    return staticmethod(function)


def hosted(engine: dict[str, Any] | None = None, handler: dict[str, Any] | None = None) -> ModelHost:
    spec = LoadSpec("", {}, "", "task", "name", "/models/name", "cpu", "float32", {"engine": "custom"})
    engine_class = type("CustomEngine", (ScriptedEngine,), engine or {})
    handler_class = type("CustomHandler", (ScriptedHandler,), handler or {})
    return ModelHost(spec, engine_class, handler_class)


def ask(host: ModelHost) -> WorkerAnswer:
    host.load()
    return host.infer({"x": 1}, {}, lambda: False)


def test_an_engine_is_told_what_to_load() -> None:
    seen: list[Any] = []
    hosted({"loading": staticmethod(seen.append)}).load()
    assert seen == [
        {
            "model_path": "/models/name",
            "task": "task",
            "device": "cpu",
            "dtype": "float32",
            "tags": {"engine": "custom"},
        }
    ]


def test_a_model_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        hosted({"loading": raising(FileNotFoundError("no such folder"))}).load()


@pytest.mark.parametrize(
    ("engine", "handler", "kind", "words"),
    [
        ({}, {"prepare": raising(ValueError("too short"))}, InvalidInputError, "too short"),
        ({}, {"prepare": raising(KeyError("x"))}, EngineError, "handler CustomHandler failed: KeyError"),
        ({}, {"prepare": staticmethod(lambda data: data)}, EngineError, "preprocess must return"),
        ({"answer": raising(ValueError("odd"))}, {}, EngineError, "engine CustomEngine failed: ValueError: odd"),
        ({"answer": raising(CancelledError("stopped"))}, {}, CancelledError, "stopped"),
        ({}, {"finish": raising(ValueError("odd"))}, EngineError, "CustomHandler failed: ValueError: odd"),
    ],
)
def test_a_failure_names_who_failed(
    engine: dict[str, Any], handler: dict[str, Any], kind: type[PlatformError], words: str
) -> None:
    with pytest.raises(PlatformError, match=words) as caught:
        ask(hosted(engine, handler))
    assert type(caught.value) is kind


def test_warnings_of_the_engine_leave_the_result() -> None:
    answer = ask(hosted({"answer": staticmethod(lambda _: {"response": "Hi", "warnings": ["slow"]})}))
    assert (answer.result, answer.warnings) == ({"response": "Hi"}, ["slow"])


def test_a_plain_value_has_no_warnings() -> None:
    answer = ask(hosted({"answer": staticmethod(lambda _: 5)}))
    assert (answer.result, answer.warnings) == ({"response": 5}, [])


def test_the_engine_hears_of_a_stop_inside_its_request_only() -> None:
    host = hosted({"answer": staticmethod(lambda _: stop_requested())})
    host.load()
    assert host.infer({}, {}, lambda: True).result == {"response": True}
    assert stop_requested() is False
