"""The task vlm on engine ollama: pictures are decoded here, and go to a server that can see."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.core.config import load_settings
from src.core.model_manager import ModelManager
from src.inference.manager import InferenceManager
from src.inference.registry import ModelRegistry
from src.testing.fake_ollama import FakeModel, FakeOllama


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    """An Ollama with a model that can see and one that cannot."""
    models = (FakeModel("seer", capabilities=("completion", "vision")), FakeModel("blind"))
    with FakeOllama(models) as fake:
        yield fake


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory, server: FakeOllama) -> Iterator[InferenceManager]:
    """A manager over the server, with `my-seer` registered."""
    data_dir = tmp_path_factory.mktemp("ollama-vision") / "data"
    models = ModelManager(load_settings(data_dir=data_dir, ollama={"api_base": server.url}))
    models.registry.register(
        "my-seer",
        source="ollama://library/seer",
        tags={"inference_task": "vlm", "engine": "ollama", "ollama_model_name": "seer"},
        stage="production",
    )
    manager = InferenceManager(models, ModelRegistry())
    yield manager
    manager.close()


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def ask(manager: InferenceManager, image: Any, *, model: str = "my-seer", **options: Any) -> Any:
    return manager.infer("vlm", "ollama", model, {"image": image, "prompt": "What is this?"}, options)


def chats(server: FakeOllama) -> list[Any]:
    return [request.body for request in server.requests if request.path == "/api/chat"]


def test_the_picture_goes_as_png_beside_the_prompt(
    manager: InferenceManager, server: FakeOllama, tmp_path: Path
) -> None:
    file = tmp_path / "image.webp"
    picture(1).convert("RGBA").save(file, lossless=True)

    answer = ask(manager, str(file), max_length=256)

    assert answer["success"], answer
    assert answer["result"]["description"]
    assert answer["provenance"]["ollama_model"] == "seer"
    body = chats(server)[-1]
    (message,) = body["messages"]
    assert (message["role"], message["content"]) == ("user", "What is this?")
    (sent,) = message["images"]
    shown = Image.open(io.BytesIO(base64.b64decode(sent)))
    assert shown.format == "PNG"
    assert np.array_equal(np.asarray(shown), np.asarray(picture(1)))
    assert body["options"]["num_predict"] == 256


def test_another_picture_has_another_answer(manager: InferenceManager) -> None:
    first, same, other = (ask(manager, picture(seed), seed=1)["result"]["description"] for seed in (1, 1, 2))
    assert first == same != other


def test_several_pictures_go_in_one_message(manager: InferenceManager, server: FakeOllama) -> None:
    assert ask(manager, [picture(1), picture(2)])["success"]
    assert len(chats(server)[-1]["messages"][0]["images"]) == 2


def test_several_sequences_are_descriptions(manager: InferenceManager) -> None:
    result = ask(manager, picture(1), num_return_sequences=2)["result"]
    assert len(result["descriptions"]) == 2
    assert result["description"] == result["descriptions"][0]


def test_a_name_that_only_ollama_knows_is_served(manager: InferenceManager) -> None:
    assert ask(manager, picture(1), model="seer")["success"]


def test_a_model_that_cannot_see_is_refused_before_it_is_asked(manager: InferenceManager, server: FakeOllama) -> None:
    before = len(chats(server))
    answer = ask(manager, picture(1), model="blind")
    assert answer["success"] is False
    assert answer["error_type"] == "ValueError"
    assert "lacks the capability 'vision'" in answer["error"]
    assert answer["details"] == {"missing_capability": "vision", "capabilities": ["completion"]}
    assert len(chats(server)) == before


def test_what_a_model_can_is_not_asked_for_each_request(manager: InferenceManager, server: FakeOllama) -> None:
    ask(manager, picture(1))
    before = len(server.requests)
    ask(manager, picture(2))
    assert "/api/show" not in [request.path for request in server.requests[before:]]


def test_a_missing_prompt_is_named(manager: InferenceManager) -> None:
    answer = manager.infer("vlm", "ollama", "my-seer", {"image": picture(1)})
    assert answer["error"] == "Invalid input format: missing field 'prompt' in data"
