"""Options on engine `ollama`: each is taken with its documented values, and what reaches Ollama is looked at."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.inference.manager import InferenceManager
from src.testing.fake_ollama import FakeOllama
from tests.documented.conftest import managed
from tests.documented.documents import COMMON_DEFAULTS, OLLAMA_DEFAULTS


@pytest.fixture(scope="module")
def manager(data_dir: Path, ollama: FakeOllama) -> Iterator[InferenceManager]:
    """A manager over the fake Ollama."""
    with managed(data_dir, ollama={"api_base": ollama.url}) as manager:
        yield manager


def ask(manager: InferenceManager, **options: Any) -> Any:
    """Returns the answer."""
    return manager.infer("text-generation", "ollama", "llama2:7b", {"inputs": "Hello"}, options)


def sent(manager: InferenceManager, ollama: FakeOllama, **options: Any) -> Any:
    """Returns the options that reach Ollama."""
    answer = ask(manager, **options)
    assert answer["success"], answer
    return next(r for r in reversed(ollama.requests) if r.path == "/api/generate").body["options"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.7), ("top_p", 0.9), ("top_k", 50),
        ("num_predict", 128), ("repeat_penalty", 1.1), ("num_ctx", 2048),
    ],
)  # fmt: skip
def test_default(manager: InferenceManager, ollama: FakeOllama, name: str, value: Any) -> None:
    """`temperature 0.7   top_p 0.9   top_k 50   num_predict 128   repeat_penalty 1.1   num_ctx 2048`."""
    assert sent(manager, ollama)[name] == value


@pytest.mark.parametrize("name", ["num_thread", "mirostat", "pad_token_id", "eos_token_id", "seed", "stop"])
def test_default_is_unset(manager: InferenceManager, ollama: FakeOllama, name: str) -> None:
    """`pad_token_id null   eos_token_id null   num_thread null`."""
    assert name not in sent(manager, ollama)


@pytest.mark.parametrize("version", [1, 2])
def test_default_of_mirostat(manager: InferenceManager, ollama: FakeOllama, version: int) -> None:
    """`mirostat 0|1|2   mirostat_tau 5.0   mirostat_eta 0.1`."""
    expected = {"mirostat": version, "mirostat_tau": 5.0, "mirostat_eta": 0.1}
    assert sent(manager, ollama, mirostat=version).items() >= expected.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_predict", 64), ("repeat_penalty", 1.3), ("mirostat", 0), ("mirostat", 1), ("mirostat", 2),
        ("mirostat_tau", 3.0), ("mirostat_eta", 0.2), ("num_ctx", 512), ("num_thread", 4),
        ("temperature", 0.0), ("temperature", 2.0), ("top_p", 0.5), ("top_k", 7),
    ],
)  # fmt: skip
def test_option_reaches_ollama(manager: InferenceManager, ollama: FakeOllama, name: str, value: Any) -> None:
    """`ollama:        num_predict 128   repeat_penalty 1.1   mirostat 0|1|2   …   num_ctx 2048   num_thread null`."""
    assert sent(manager, ollama, **{name: value})[name] == value


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"max_length": 20}, {"num_predict": 20}),
        ({"max_new_tokens": 21}, {"num_predict": 21}),
        ({"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"do_sample": False}, {"temperature": 0.0}),
    ],
    ids=str,
)
def test_option_reaches_ollama_by_its_own_name(
    manager: InferenceManager, ollama: FakeOllama, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """`max_length 512 (total)   max_new_tokens 256   …   do_sample true   …   repetition_penalty 1.0`."""
    assert sent(manager, ollama, **ours).items() >= theirs.items()


@pytest.mark.parametrize(("name", "value"), [*COMMON_DEFAULTS.items(), *OLLAMA_DEFAULTS.items()])
def test_option_is_taken_without_a_warning(manager: InferenceManager, name: str, value: Any) -> None:
    """`max_length 512 (total)   max_new_tokens 256   min_length 10   do_sample true   …   timeout 60 (seconds)`."""
    answer = ask(manager, **{name: value})
    assert answer["success"] is True, answer
    assert "warnings" not in answer


@pytest.mark.parametrize("value", [-0.1, 2.1])
def test_temperature_is_0_to_2(manager: InferenceManager, value: float) -> None:
    """`temperature 0.7 (0.0–2.0)`."""
    answer = ask(manager, temperature=value)
    assert answer["error_type"] == "ValidationError"
    assert "temperature" in answer["error"]


def test_timeout_is_60_seconds(manager: InferenceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout 60 (seconds)`."""
    bounds: list[float | None] = []
    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda delay: bounds.append(delay) or timeout(delay))
    assert ask(manager)["success"] is True
    assert 60.0 in bounds


def test_timeout_stops_the_generation(manager: InferenceManager, ollama: FakeOllama) -> None:
    """`timeout 60 (seconds)`."""
    ollama.pace.token_delay = 0.05
    try:
        answer = ask(manager, timeout=0.2, num_predict=100)
    finally:
        ollama.pace.token_delay = 0.0
    assert answer["error_type"] == "InferenceTimeoutError"
    assert "0.2 s" in answer["error"]
    assert ollama.wait_until_idle()
