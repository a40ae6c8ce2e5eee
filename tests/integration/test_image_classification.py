"""Pictures classified by the running service: held-out ones are named rightly, alone, in lists and all at once."""

import base64
import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from samples.inputs.things import LABELS, draw_thing, nothing
from tests.integration.conftest import manager_of
from tests.service import CLIENT, ROOT, Service, running_service

pytestmark = pytest.mark.slow

RNG = random.Random("service")
THINGS = [draw_thing(RNG, held_out=True, label=label) for label in LABELS for _ in range(4)]
TRUTHS = [thing.label for thing in THINGS]
RIGHT, GUESSING = 0.95, 0.2
# Pictures of one request.
LIST = 10


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the sample that classifies pictures."""
    data_dir = tmp_path_factory.mktemp("pictures") / "data"
    register(data_dir)
    with running_service(data_dir) as running:
        yield running


def register(data_dir: Path) -> None:
    data_dir.mkdir()
    models = manager_of(data_dir)
    tags = {"task": "image-classification", "engine": "transformers"}
    models.register_model_to_mlflow("demo-image", "local", ROOT / "samples" / "demo-image", tags, stage="production")
    models.close()


@pytest.fixture(scope="module")
def ask(seen: Service) -> Callable[..., Any]:
    """Posts pictures, one or a list; returns the response."""

    def post(image: Any, **options: Any) -> Any:
        body = {"task": "image-classification", "engine": "transformers", "model_name": "demo-image"}
        return seen.post("/inference/infer", {**body, "data": {"image": image}, "options": options})

    return post


def uri(picture: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def result(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["result"]


def share(named: list[str]) -> float:
    return sum(map(str.__eq__, named, TRUTHS)) / len(TRUTHS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_callers_at_once_each_get_what_is_in_their_own_picture(
    ask: Any, kind: str, figure: Callable[[str], None]
) -> None:
    with ThreadPoolExecutor(16) as callers:
        answers = [result(response) for response in callers.map(lambda thing: ask(uri(thing.image, kind)), THINGS)]
    right = share([answer["labels"][0] for answer in answers])
    figure(f"{right:.1%} of {len(THINGS)} held-out pictures ({kind}) named rightly over HTTP, 16 at a time")
    assert right >= RIGHT
    for answer in answers:
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert len(answer["labels"]) == len(answer["scores"]) == 5


def test_a_list_answers_as_its_pictures_alone(ask: Any) -> None:
    things = THINGS[::4]
    answer = result(ask([uri(thing.image) for thing in things], top_k=0))
    right = [picture["labels"][0] == thing.label for picture, thing in zip(answer["images"], things, strict=True)]
    assert sum(right) >= len(things) - 1
    assert answer["labels"] == answer["images"][0]["labels"]
    alone = result(ask(uri(things[7].image), top_k=0))
    assert "images" not in alone
    assert alone["labels"][0] == answer["images"][7]["labels"][0]
    assert alone["scores"] == pytest.approx(answer["images"][7]["scores"], abs=1e-5)
    assert sum(alone["scores"]) == pytest.approx(1)


def test_pictures_of_nothing_are_not_answered_rightly(ask: Any) -> None:
    rng = random.Random("nothing")
    lists = [[uri(nothing(rng)) for _ in range(LIST)] for _ in range(len(THINGS) // LIST)]
    named = [picture["labels"][0] for pictures in lists for picture in result(ask(pictures))["images"]]
    assert share(named) <= GUESSING


def test_what_has_no_effect_is_said(ask: Any) -> None:
    response = ask(uri(THINGS[0].image), top_k=2, num_beams=3)
    assert len(result(response)["labels"]) == 2
    assert response.json()["warnings"] == ["option 'num_beams' has no effect on image-classification"]


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ([], "field 'image' is an empty list"),
        (uri(Image.new("RGB", (500, 2))), "500 x 2 pixels is too narrow a strip"),
        ("data:image/png;base64,AAAA", "data.image"),
    ],
)
def test_what_is_no_picture_to_classify_is_a_400(ask: Any, image: Any, error: str) -> None:
    response = ask(image)
    assert response.status_code == 400
    assert error in response.json()["error"]


def test_a_file_is_taken_by_upload(seen: Service) -> None:
    request = '{"task": "image-classification", "engine": "transformers", "model_name": "demo-image"}'
    picture = (ROOT / "samples/media/boat.png").read_bytes()
    response = CLIENT.post(
        seen.url + "/inference/infer/upload", data={"request": request}, files={"image": picture}, timeout=60
    )
    assert result(response)["labels"][0] == "boat"
