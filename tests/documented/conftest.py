"""What users have been told, line by line: each test is named after its line and quotes it.

Not covered yet, because not built yet: the tasks of media (vlm, asr, ocr, audio-classification,
video-analysis, document-analysis) and their results, the lifecycle under `/models` with its jobs, and
workflows A to C but for A's inference. `docker compose up`, the ports behind it and the lock files are
tests/integration/test_deployment.py's; custom handlers by entry point test_extensions.py's beside it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from src.core.config import load_settings
from src.core.model_manager import ModelManager
from src.inference.manager import InferenceManager
from src.inference.registry import ModelRegistry
from src.testing.fake_ollama import FakeModel, FakeOllama
from tests.integration.conftest import manager_of
from tests.tiny_models import tiny_llama

OURS = ("AIML_", "MLFLOW_", "LAKEFS_", "OLLAMA_", "AWS_", "POSTGRES_")


@contextmanager
def without_settings_of_this_machine() -> Iterator[None]:
    """Leaves the documented settings alone in force."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith(OURS)]:
            monkeypatch.delenv(name)
        yield


@pytest.fixture(scope="module", autouse=True)
def only_documented_settings() -> Iterator[None]:
    """Leaves the documented settings alone in force, also for the fixtures of a module."""
    with without_settings_of_this_machine():
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama, one token a byte."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def ollama() -> Iterator[FakeOllama]:
    """An Ollama server with the documented models; it can pull `llama2:13b`."""
    models = (FakeModel("llama2:7b"), FakeModel("qwen3:1.7b"))
    with FakeOllama(models, pullable=[FakeModel("llama2:13b")]) as server:
        yield server


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The data folder, with the documented names registered: `model` for transformers, the others for ollama."""
    folder = tmp_path_factory.mktemp("documented") / "data"
    folder.mkdir()
    with without_settings_of_this_machine():
        register_documented_names(folder, tiny_model)
    return folder


def register_documented_names(folder: Path, tiny_model: Path) -> None:
    """Registers what the documentation's requests name."""
    models = manager_of(folder)
    models.register_model_to_mlflow(
        "model", "huggingface", tiny_model, {"task": "text-generation", "engine": "transformers"}
    )
    for name, ollama_name in (
        ("llama2-7b", "llama2:7b"), ("llama2-13b", "llama2:13b"), ("qwen3:1.7b-ollama-1", "qwen3:1.7b"),
    ):  # fmt: skip
        models.registry.register(
            name,
            source=f"ollama://library/{ollama_name}",
            tags={"inference_task": "text-generation", "engine": "ollama", "ollama_model_name": ollama_name},
            stage="production",
        )
    models.close()


@contextmanager
def managed(data_dir: Path, **settings: Any) -> Iterator[InferenceManager]:
    """Yields a manager of this process, whose models are loaded in this process too."""
    models = ModelManager(load_settings(data_dir=data_dir, workers={"isolation": "thread"}, **settings))
    manager = InferenceManager(models, ModelRegistry())
    try:
        yield manager
    finally:
        manager.close()
