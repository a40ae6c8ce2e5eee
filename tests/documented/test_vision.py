"""Pictures as documented: the calls run as written, a path or a picture of Pillow's in them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.inference.manager import InferenceManager
from tests.documented.conftest import managed
from tests.integration.conftest import manager_of
from tests.tiny_vision import tiny_llava

pytestmark = pytest.mark.xdist_group("torch")

PICTURE = np.random.default_rng(4).integers(0, 256, (48, 80, 3), dtype=np.uint8)
TASKS = {"llava-1.5-7b": "vlm", "trocr-base": "ocr"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A picture in a file."""
    file = tmp_path_factory.mktemp("files") / "image.png"
    Image.fromarray(PICTURE).save(file)
    return str(file)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceManager]:
    """A manager with the documented names registered: tiny random models, the LLaVA with 576 tokens a picture."""
    from tests.architectures.rows_ocr import trocr

    base = tmp_path_factory.mktemp("models")
    tiny_llava(base / "llava-1.5-7b", side=336, patch=14)
    trocr(base / "trocr-base")
    data_dir = tmp_path_factory.mktemp("documented-vision") / "data"
    data_dir.mkdir()
    models = manager_of(data_dir)
    for name, task in TASKS.items():
        models.register_model_to_mlflow(name, "huggingface", base / name, {"task": task, "engine": "transformers"})
    models.close()
    with managed(data_dir) as manager:
        yield manager


def describe(inference_manager: InferenceManager, image: Any, **options: Any) -> Any:
    """Returns the answer to the documented call."""
    return inference_manager.infer(
        task="vlm",
        engine="transformers",
        model_name="llava-1.5-7b",
        data={"image": image, "prompt": "What is in this picture?"},
        options={"max_length": 256, **options},
    )


def test_vlm(manager: InferenceManager, path: str) -> None:
    """`data={"image": "/path/to/image.jpg", "prompt": "…"}, options={"max_length": 256})  # → ["description"]`."""
    result = describe(manager, path)
    assert result["success"] is True, result
    assert isinstance(result["result"]["description"], str)
    metadata = result["result"]["metadata"]
    assert metadata["prompt_tokens"] + metadata["tokens"] <= 256


def test_image_as_a_path_or_as_pillows(manager: InferenceManager, path: str) -> None:
    """`image: path or PIL.Image`: the same picture, the same answer."""
    by_path, by_object = (
        describe(manager, image, do_sample=False, max_new_tokens=6, logprobs=True)
        for image in (path, Image.fromarray(PICTURE))
    )
    assert by_path["result"] == by_object["result"]


def test_missing_prompt(manager: InferenceManager, path: str) -> None:
    """``ValueError: Invalid input format`: names the missing field`."""
    result = manager.infer("vlm", "transformers", "llava-1.5-7b", {"image": path})
    assert result["success"] is False
    assert result["error_type"] == "ValueError"
    assert result["error"] == "Invalid input format: missing field 'prompt' in data"


def test_ocr(manager: InferenceManager, path: str) -> None:
    """`model_name="trocr-base", data={"image": "/path/to/document.jpg"}, options={})  # → ["text"]`."""
    result = manager.infer(task="ocr", engine="transformers", model_name="trocr-base", data={"image": path}, options={})
    assert result["success"] is True, result
    assert isinstance(result["result"]["text"], str)
