"""Videos and documents as documented: the calls run as written, with a real file of each."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from samples.inputs.forms import draw_form, write_pdf
from samples.inputs.motions import draw_clip, write_video
from src.inference.manager import InferenceManager
from tests.documented.conftest import managed
from tests.integration.conftest import manager_of
from tests.tiny_documents import tiny_layoutlmv3

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A video and a document."""
    folder = tmp_path_factory.mktemp("files")
    write_video(draw_clip(random.Random(1), held_out=True), folder / "video.mp4")
    (folder / "document.pdf").write_bytes(write_pdf(draw_form(random.Random(1), held_out=True)))
    return {name: str(folder / name) for name in ("video.mp4", "document.pdf")}


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceManager]:
    """A manager with the documented names registered: tiny random models of these architectures."""
    from tests.architectures.rows_vision_llava import video_llava

    base = tmp_path_factory.mktemp("models")
    video_llava(base / "video-llava")
    tiny_layoutlmv3(base / "layoutlm-v3", positions=386)
    data_dir = tmp_path_factory.mktemp("documented-media") / "data"
    data_dir.mkdir()
    models = manager_of(data_dir)
    for name, task in (("video-llava", "video-analysis"), ("layoutlm-v3", "document-analysis")):
        models.register_model_to_mlflow(name, "huggingface", base / name, {"task": task, "engine": "transformers"})
    models.close()
    with managed(data_dir) as manager:
        yield manager


def ask_video(inference_manager: InferenceManager, data: dict[str, Any], **options: Any) -> Any:
    """Returns the answer to the documented call."""
    return inference_manager.infer(
        task="video-analysis", engine="transformers", model_name="video-llava", data=data, options=options
    )


def ask_document(inference_manager: InferenceManager, data: dict[str, Any]) -> Any:
    """Returns the answer to the documented call."""
    return inference_manager.infer(
        task="document-analysis", engine="transformers", model_name="layoutlm-v3", data=data, options={}
    )


def test_video_analysis(manager: InferenceManager, files: dict[str, str]) -> None:
    """`data={"video": "/path/to/video.mp4", "prompt": "…"}, options={"max_length": 300})  # → ["analysis"]`."""
    answer = ask_video(manager, {"video": files["video.mp4"], "prompt": "What happens?"}, max_length=300)
    assert answer["success"] is True, answer
    assert isinstance(answer["result"]["analysis"], str)
    assert answer["result"]["frames"]["count"] == 8


def test_max_length_300_with_a_thousand_tokens_of_frames(manager: InferenceManager, files: dict[str, str]) -> None:
    """`options={"max_length": 300}`: the tokens of the video's frames are left out."""
    data = {"video": files["video.mp4"], "prompt": "What happens?"}
    answer = ask_video(manager, data, max_length=300, num_frames=64, min_length=300)
    frames, metadata = answer["result"]["frames"]["count"], answer["result"]["metadata"]
    assert frames * 17 > 300
    assert metadata["tokens"] == 300 - metadata["prompt_tokens"]


def test_document_analysis(manager: InferenceManager, files: dict[str, str]) -> None:
    """`data={"document": "/path/to/document.pdf", "query": "…"}, options={})  # → ["answer"]`."""
    answer = ask_document(manager, {"document": files["document.pdf"], "query": "What is the total?"})
    assert answer["success"] is True, answer
    assert answer["result"]["answer"]
    assert answer["result"]["page"] == 0


@pytest.mark.parametrize("missing", ["video", "prompt", "document", "query"])
def test_a_missing_field_is_named(manager: InferenceManager, files: dict[str, str], missing: str) -> None:
    """`ValueError: Invalid input format`: names the missing field."""
    video = {"video": files["video.mp4"], "prompt": "What happens?"}
    document = {"document": files["document.pdf"], "query": "What is the total?"}
    ask, data = (ask_video, video) if missing in video else (ask_document, document)
    answer = ask(manager, {name: value for name, value in data.items() if name != missing})
    assert answer["error_type"] == "ValueError"
    assert f"Invalid input format: missing field '{missing}'" in answer["error"]
