"""One service for most tests: the sample models, a tiny Llama, a fake Ollama."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from src.core.config import load_settings
from src.core.model_manager import ModelManager
from src.testing.fake_hub import FakeHub, FakeRepo
from src.testing.fake_ollama import FakeOllama
from tests.service import Service, running_service, wait_until
from tests.tiny_models import tiny_llama


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama, one token a byte."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def ollama() -> Iterator[FakeOllama]:
    """An Ollama server with the model `tiny`."""
    with FakeOllama() as server:
        yield server


@pytest.fixture(scope="session")
def hub(tiny_model: Path) -> Iterator[FakeHub]:
    """A hub with one model."""
    with FakeHub([FakeRepo.from_folder("google/gemma-2b", tiny_model)]) as server:
        yield server


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, ollama: FakeOllama, hub: FakeHub
) -> Iterator[Service]:
    """The service with `demo-text`, `tiny` (Transformers) and `tiny-ollama` registered."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    with running_service(data_dir, samples="on", OLLAMA_HOST=ollama.url, HF_ENDPOINT=hub.url) as running:
        wait_until((data_dir / "samples-registered").exists, 300, "the samples to be registered")
        register_models(data_dir, tiny_model)
        yield running


@pytest.fixture
def own_data_dir(tmp_path: Path, tiny_model: Path) -> Path:
    """A data folder of the test's own with `tiny` registered."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    register_models(data_dir, tiny_model)
    return data_dir


def register_models(data_dir: Path, tiny_model: Path) -> None:
    """Registers models beside the running service, as the Python door does."""
    models = manager_of(data_dir)
    models.register_model_to_mlflow(
        "tiny", "local", tiny_model, {"task": "text-generation", "engine": "transformers"}, stage="production"
    )
    models.registry.register(
        "qwen3:1.7b-ollama-1",
        source="ollama://library/tiny",
        tags={"inference_task": "text-generation", "engine": "ollama", "ollama_model_name": "tiny"},
        stage="production",
    )
    models.close()


def manager_of(data_dir: Path) -> ModelManager:
    """Returns a model manager of this process over a data folder."""
    return ModelManager(load_settings(data_dir=data_dir))
