"""The tasks vlm and ocr over HTTP: the samples on inputs that training never saw, and what is refused."""

import base64
import io
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from samples.inputs.lines import blank_line, draw_line
from samples.inputs.scenes import blank_scene, exam_scenes, exchanges
from src.core.model_manager import ModelManager
from tests.integration.conftest import manager_of
from tests.service import ROOT, Service, running_service

SAMPLES = {"demo-vlm": "vlm", "demo-ocr": "ocr"}
SCENES, LINES = 60, 60
# Pictures of one request.
MOST = 15
RIGHT, GUESSING = 0.9, 0.2
EXACT = {"do_sample": False, "min_length": 0, "max_new_tokens": 16}


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with the two samples that see."""
    data_dir = tmp_path_factory.mktemp("vision") / "data"
    data_dir.mkdir()
    register(data_dir)
    with running_service(data_dir) as running:
        yield running


def register(data_dir: Path) -> None:
    models: ModelManager = manager_of(data_dir)
    for name, task in SAMPLES.items():
        folder = ROOT / "samples" / name
        models.register_model_to_mlflow(
            name, "local", folder, {"task": task, "engine": "transformers"}, stage="production"
        )
    models.close()


def asked(served: Service, task: str, model: str, data: Any, **options: Any) -> httpx.Response:
    body = {"task": task, "engine": "transformers", "model_name": model, "data": data, "options": options}
    return served.post("/inference/infer", body)


def described(served: Service, picture: Image.Image, prompt: str) -> str:
    response = asked(served, "vlm", "demo-vlm", {"image": uri(picture), "prompt": prompt}, **EXACT)
    assert response.status_code == 200, response.text
    return str(response.json()["result"]["description"]).strip()


def read(served: Service, pictures: Sequence[Image.Image]) -> list[str]:
    texts: list[str] = []
    for begin in range(0, len(pictures), MOST):
        data = {"image": [uri(picture) for picture in pictures[begin : begin + MOST]]}
        response = asked(served, "ocr", "demo-ocr", data)
        assert response.status_code == 200, response.text
        texts += response.json()["result"]["texts"]
    return texts


def share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def test_demo_vlm_answers_about_scenes_that_training_never_saw_and_guesses_at_a_blank(
    served: Service, figure: Callable[[str], None]
) -> None:
    rng = random.Random(611)
    asks = [
        (scene.image, exchanges(scene, rng)[kind])
        for scene, kind in zip(exam_scenes(SCENES, rng), cycle(("shape", "colour", "count", "all")), strict=False)
    ]
    right = share([described(served, image, ask.prompt) == ask.reply for image, ask in asks])
    blank = share([described(served, blank_scene(rng), ask.prompt) == ask.reply for _, ask in asks])
    figure(f"demo-vlm over HTTP: {right:.3f} exactly right, {blank:.3f} with blank pictures ({SCENES} of each)")
    assert right >= RIGHT
    assert blank <= GUESSING


def test_demo_ocr_reads_lines_in_fonts_that_training_never_saw_and_nothing_on_a_blank(
    served: Service, figure: Callable[[str], None]
) -> None:
    rng = random.Random(612)
    lines = [draw_line(rng, held_out=True) for _ in range(LINES)]
    texts = read(served, [line.image for line in lines])
    right = share([text == line.text for text, line in zip(texts, lines, strict=True)])
    blanks = read(served, [blank_line(rng) for _ in lines])
    blank = share([text == line.text for text, line in zip(blanks, lines, strict=True)])
    figure(f"demo-ocr over HTTP: {right:.3f} exactly right, {blank:.3f} with blank pictures ({LINES} of each)")
    assert right >= RIGHT
    assert blank <= GUESSING


def test_one_line_is_text_and_several_pictures_are_texts(served: Service) -> None:
    rng = random.Random(613)
    first, second = draw_line(rng, held_out=True), draw_line(rng, held_out=True)
    one = asked(served, "ocr", "demo-ocr", {"image": uri(first.image)}, logprobs=True).json()["result"]
    assert one["lines"][0]["text"] == one["text"]
    assert len(one["metadata"]["logprobs"]) == one["metadata"]["tokens"]
    both = asked(served, "ocr", "demo-ocr", {"image": [uri(first.image), uri(second.image)]}).json()["result"]
    assert both["texts"][0] == one["text"]
    assert both["text"] == "\n\n".join(both["texts"])


def test_a_vlm_that_sees_can_be_asked_to_read(served: Service) -> None:
    response = asked(served, "ocr", "demo-vlm", {"image": uri(blank_scene(random.Random(1)))}, max_new_tokens=4)
    assert response.status_code == 200, response.text
    assert isinstance(response.json()["result"]["text"], str)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": "data:image/png;base64,AAAA"}, "Invalid input format: missing field 'prompt'"),
        ({"prompt": "What is this?"}, "Invalid input format: missing field 'image'"),
        ({"image": "data:image/png;base64,AAAA", "prompt": "What is this?"}, "data.image"),
        ({"image": [], "prompt": "What is this?"}, "field 'image' is an empty list"),
    ],
)
def test_bad_data_is_a_400_that_names_the_field(served: Service, data: Any, message: str) -> None:
    response = asked(served, "vlm", "demo-vlm", data)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]


def test_too_many_placeholders_are_a_400(served: Service) -> None:
    data = {"image": uri(blank_scene(random.Random(2))), "prompt": "<image><image>What is this?"}
    response = asked(served, "vlm", "demo-vlm", data)
    assert response.status_code == 400
    assert "write one for each, or none" in response.json()["error"]
