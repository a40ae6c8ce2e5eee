"""Errors that users know: their words, at the Python door and over the error types of answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.inference.manager import InferenceManager
from src.testing.fake_ollama import FakeOllama
from tests.documented.conftest import managed
from tests.service import free_port

HELLO = {"inputs": "Hello"}


@pytest.fixture(scope="module")
def manager(data_dir: Path, ollama: FakeOllama) -> Iterator[InferenceManager]:
    """A manager over the fake Ollama, its models in this process."""
    with managed(data_dir, ollama={"api_base": ollama.url}) as manager:
        yield manager


@pytest.mark.parametrize("model", ["llama2-7b", "llama2:7b"], ids=["registered", "Ollama's own"])
def test_ollama_unreachable(data_dir: Path, model: str) -> None:
    """Ollama unreachable: "Failed to connect to Ollama server", with how to look and start it."""
    address = f"http://127.0.0.1:{free_port()}"
    with managed(data_dir, ollama={"api_base": address}) as manager:
        error = manager.infer("text-generation", "ollama", model, HELLO)["error"]
    assert error.startswith("Failed to connect to Ollama server")
    assert f"curl {address}" in error
    assert "ollama serve" in error


@pytest.mark.parametrize("engine", ["ollama", "transformers"])
def test_model_not_found(manager: InferenceManager, engine: str) -> None:
    """`ModelNotFoundError: Model '…' not found in MLflow`."""
    answer = manager.infer("text-generation", engine, "nobody", HELLO)
    assert f"{answer['error_type']}: {answer['error']}".startswith(
        "ModelNotFoundError: Model 'nobody' not found in MLflow"
    )


def test_out_of_memory(manager: InferenceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory: use the CPU, clear the cache, a smaller or quantized model."""
    import torch
    from transformers import GenerationMixin

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(GenerationMixin, "generate", full)
    answer = manager.infer("text-generation", "transformers", "model", HELLO)
    assert answer["error_type"] == "InsufficientMemoryError"
    assert "CUDA out of memory" in answer["error"]
    for advice in ("CPU", "clear the cache", "smaller or quantized model"):
        assert advice in answer["error"]


@pytest.mark.parametrize(("engine", "model"), [("ollama", "llama2-7b"), ("transformers", "model")])
@pytest.mark.parametrize("data", [{}, {"input": "Hello"}, {"inputs": None}], ids=str)
def test_invalid_input_format(manager: InferenceManager, engine: str, model: str, data: Any) -> None:
    """`ValueError: Invalid input format`: names the missing field."""
    answer = manager.infer("text-generation", engine, model, data)
    assert f"{answer['error_type']}: {answer['error']}".startswith("ValueError: Invalid input format")
    assert "'inputs'" in answer["error"]


def test_invalid_input_format_is_a_value_error(manager: InferenceManager) -> None:
    """`ValueError: Invalid input format`: raised, it is one."""
    with pytest.raises(ValueError, match=r"Invalid input format.*'inputs'"):
        manager.infer("text-generation", "transformers", "model", {}, raise_on_error=True)
