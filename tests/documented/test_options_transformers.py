"""Options on engine `transformers`: each is taken with its documented values, and what `generate` is given is seen."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.inference.manager import InferenceManager
from tests.documented.conftest import managed
from tests.documented.documents import COMMON_DEFAULTS

FEW = {"max_new_tokens": 2}
PROMPT = "Hello"
"""Five tokens for the tiny model."""


@pytest.fixture(scope="module")
def manager(data_dir: Path) -> Iterator[InferenceManager]:
    """A manager whose models are loaded in this process."""
    with managed(data_dir) as manager:
        yield manager


@pytest.fixture
def given(manager: InferenceManager, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Infers, and returns the generation config that the library's `generate` was given."""
    from transformers import GenerationMixin

    seen: list[Any] = []
    generate = GenerationMixin.generate

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["generation_config"])
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", spy)

    def infer(**options: Any) -> Any:
        answer = ask(manager, **options)
        assert answer["success"], answer
        return seen[-1]

    return infer


def ask(manager: InferenceManager, **options: Any) -> Any:
    """Returns the answer."""
    return manager.infer("text-generation", "transformers", "model", {"inputs": PROMPT}, options)


def test_defaults(given: Callable[..., Any]) -> None:
    """`max_new_tokens 256   min_length 10   do_sample true   temperature 0.7   top_p 0.9   top_k 50   …`."""
    config = given()
    assert (config.max_new_tokens, config.min_new_tokens) == (256, 10 - len(PROMPT))
    for name in ("do_sample", "temperature", "top_p", "top_k", "num_beams", "repetition_penalty"):
        assert getattr(config, name) == COMMON_DEFAULTS[name], name
    assert (config.no_repeat_ngram_size, config.num_return_sequences) == (0, 1)


def test_defaults_of_beams(given: Callable[..., Any]) -> None:
    """`num_beams 1   early_stopping false   …   length_penalty 1.0`."""
    config = given(num_beams=2, **FEW)
    assert (config.num_beams, config.early_stopping, config.length_penalty) == (2, False, 1.0)


def test_default_tokens_are_the_models_own(given: Callable[..., Any]) -> None:
    """`pad_token_id null   eos_token_id null`."""
    config = given(**FEW)
    assert (config.pad_token_id, config.eos_token_id) == (0, 2)


def test_max_length_512_is_the_total(manager: InferenceManager) -> None:
    """`max_length 512 (total)`: prompt and answer together."""
    answer = ask(manager, max_length=20, min_length=20)
    assert answer["result"]["metadata"]["tokens"] == 20 - len(PROMPT)
    long = manager.infer("text-generation", "transformers", "model", {"inputs": "x" * 512})
    assert "max_length (512)" in long["error"]


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"max_new_tokens": 3}, "max_new_tokens", 3),
        ({"min_length": 9}, "min_new_tokens", 4),
        ({"do_sample": False}, "do_sample", False),
        ({"temperature": 0.0}, "do_sample", False),
        ({"temperature": 2.0}, "temperature", 2.0),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": 7}, "top_k", 7),
        ({"num_beams": 3}, "num_beams", 3),
        ({"num_beams": 2, "early_stopping": True}, "early_stopping", True),
        ({"repetition_penalty": 1.2}, "repetition_penalty", 1.2),
        ({"num_beams": 2, "length_penalty": 0.5}, "length_penalty", 0.5),
        ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size", 2),
        ({"num_return_sequences": 2}, "num_return_sequences", 2),
        ({"pad_token_id": 5}, "pad_token_id", 5),
        ({"eos_token_id": 6}, "eos_token_id", 6),
    ],
    ids=str,
)
def test_option_reaches_the_model(given: Callable[..., Any], options: dict[str, Any], name: str, value: Any) -> None:
    """`max_length 512 (total)   max_new_tokens 256   min_length 10   do_sample true   …   eos_token_id null`."""
    assert getattr(given(**{"max_new_tokens": 6, **options}), name) == value


@pytest.mark.parametrize(("name", "value"), COMMON_DEFAULTS.items())
def test_option_is_taken_without_a_warning(manager: InferenceManager, name: str, value: Any) -> None:
    """`max_length 512 (total)   max_new_tokens 256   min_length 10   do_sample true   …   timeout 60 (seconds)`."""
    answer = ask(manager, **{**FEW, name: value})
    assert answer["success"] is True, answer
    assert "warnings" not in answer


@pytest.mark.parametrize("value", [-0.1, 2.1])
def test_temperature_is_0_to_2(manager: InferenceManager, value: float) -> None:
    """`temperature 0.7 (0.0–2.0)`."""
    answer = ask(manager, temperature=value)
    assert answer["error_type"] == "ValidationError"
    assert "temperature" in answer["error"]


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0"])
def test_device(manager: InferenceManager, device: str) -> None:
    """`device auto|cuda|cpu|cuda:0`; a machine without CUDA says which devices it has."""
    import torch

    answer = ask(manager, device=device, **FEW)
    if device.startswith("cuda") and not torch.cuda.is_available():
        assert answer["error_type"] == "ValueError"
        assert "cpu" in answer["error"]
    else:
        expected = "cuda:0" if torch.cuda.is_available() and device != "cpu" else "cpu"
        assert answer["provenance"]["device"] == expected


@pytest.mark.parametrize(
    ("dtype", "loaded"),
    [
        ("auto", "float32"),
        ("float16", "float16"),
        ("float32", "float32"),
        ("int8", "int8"),
    ],
)
def test_torch_dtype(manager: InferenceManager, dtype: str, loaded: str) -> None:
    """`torch_dtype auto|float16|float32|int8`."""
    answer = ask(manager, torch_dtype=dtype, **FEW)
    assert answer["success"] is True, answer["error"]
    assert answer["provenance"]["dtype"] == loaded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device_map", "auto"), ("trust_remote_code", True), ("trust_remote_code", False), ("batch_size", 1),
        ("language", "zh"), ("task", "transcribe"), ("task", "translate"), ("return_timestamps", False),
    ],
)  # fmt: skip
def test_option_of_transformers_is_taken(manager: InferenceManager, name: str, value: Any) -> None:
    """`device_map auto   …   trust_remote_code   batch_size 1   language zh   task transcribe|translate   …`."""
    answer = ask(manager, **{name: value}, **FEW)
    assert answer["success"] is True, answer


def test_timeout_is_60_seconds(manager: InferenceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout 60 (seconds)`."""
    bounds: list[float | None] = []
    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda delay: bounds.append(delay) or timeout(delay))
    assert ask(manager, **FEW)["success"] is True
    assert 60.0 in bounds


def test_timeout_stops_the_generation(manager: InferenceManager) -> None:
    """`timeout 60 (seconds)`."""
    answer = ask(manager, max_new_tokens=2000, min_length=2000, timeout=0.2)
    assert answer["error_type"] == "InferenceTimeoutError"
    assert "0.2 s" in answer["error"]
