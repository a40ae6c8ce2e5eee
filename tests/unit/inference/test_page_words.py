"""Pages without a text layer get their words from the configured OCR."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from samples.inputs.lines import load_font
from src.core.errors import InvalidInputError, ModelNotFoundError
from src.core.settings_sections import MediaSettings
from src.inference.page_words import PageReader, table_words
from src.inference.types import Answer, InferenceRequest, Provenance

pytestmark = pytest.mark.anyio
MADE_BY = Provenance("some-ocr", "3", "production", None, "c0ffee", "sha256:1", "transformers", None)


def page(number: int, *, has_text: bool | None, text: str = "") -> dict[str, Any]:
    image = Image.new("RGB", (800, 300), "white")
    ImageDraw.Draw(image).text((60, 100), text, fill="black", font=load_font("DejaVuSans.ttf", 40))
    words = ["printed"] if has_text else []
    return {
        "number": number,
        "image": np.asarray(image),
        "words": words,
        "boxes": np.zeros((len(words), 4), np.int32),
        "has_text": has_text,
    }


def reads(
    *words: tuple[str, list[int]],
) -> tuple[list[InferenceRequest], Callable[[InferenceRequest], Awaitable[Answer]]]:
    asked: list[InferenceRequest] = []

    async def execute(request: InferenceRequest) -> Answer:
        asked.append(request)
        return Answer({"words": [{"text": text, "box": box} for text, box in words]}, MADE_BY)

    return asked, execute


async def test_a_scanned_page_gets_words_boxes_and_what_read_them() -> None:
    asked, execute = reads(("Total", [80, 30, 160, 60]), (" ", [0, 0, 1, 1]), ("5.00", [400, 30, 800, 300]))
    document = {"pages": [page(0, has_text=True), page(1, has_text=False)]}
    await PageReader(MediaSettings(ocr="some-ocr"), execute).fill(document, "data.document")
    kept, read = document["pages"]
    assert (kept["words"], "ocr" in kept) == (["printed"], False)
    assert read["words"] == ["Total", "5.00"]
    assert read["boxes"].tolist() == [[100, 100, 200, 200], [500, 100, 1000, 1000]]
    assert read["ocr"] == {"model": "some-ocr", "version": "3", "commit": "c0ffee", "digest": "sha256:1"}
    (request,) = asked
    assert (request.task, request.model_name, request.options) == ("ocr", "some-ocr", {"segmentation": "words"})


async def test_a_page_where_nothing_is_read_has_no_words_but_was_read() -> None:
    _, execute = reads()
    document = {"pages": [page(0, has_text=False)]}
    await PageReader(MediaSettings(ocr="some-ocr"), execute).fill(document, "data.document")
    assert document["pages"][0]["words"] == []
    assert document["pages"][0]["boxes"].shape == (0, 4)
    assert document["pages"][0]["ocr"]["model"] == "some-ocr"


async def test_pages_with_text_or_without_a_picture_are_left_alone() -> None:
    asked, execute = reads()
    bare = page(1, has_text=False) | {"image": None}
    await PageReader(MediaSettings(ocr="some-ocr"), execute).fill({"pages": [page(0, has_text=True), bare]}, "d")
    assert asked == []


@pytest.mark.parametrize("ocr", ["none", ""])
async def test_without_ocr_the_error_says_how_to_get_one(ocr: str) -> None:
    _, execute = reads()
    with pytest.raises(InvalidInputError, match=r"data\.document.*no OCR is configured.*media\.ocr"):
        await PageReader(MediaSettings(ocr=ocr), execute).fill({"pages": [page(0, has_text=False)]}, "data.document")


async def test_a_model_that_nobody_registered_is_named() -> None:
    async def execute(request: InferenceRequest) -> Answer:
        raise ModelNotFoundError("no such model")

    with pytest.raises(InvalidInputError, match="'gone' is not registered"):
        await PageReader(MediaSettings(ocr="gone"), execute).fill({"pages": [page(0, has_text=False)]}, "d")


async def test_tesseract_that_is_absent_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.inference.page_words.shutil.which", lambda _: None)
    with pytest.raises(InvalidInputError, match="not installed"):
        await PageReader(MediaSettings(ocr="tesseract"), reads()[1]).fill({"pages": [page(0, has_text=False)]}, "d")


async def test_tesseract_reads_a_page(needs_program: Callable[[str], None]) -> None:
    needs_program("tesseract")
    document = {"pages": [page(0, has_text=False, text="Invoice 4711")]}
    await PageReader(MediaSettings(ocr="tesseract"), reads()[1]).fill(document, "data.document")
    (read,) = document["pages"]
    assert read["words"] == ["Invoice", "4711"]
    left, top, right, bottom = read["boxes"][0].tolist()
    assert 50 < left < 110
    assert 250 < top < bottom < 550
    assert right < read["boxes"][1][0]


def test_tesseracts_table_without_words_has_none() -> None:
    assert table_words("", 100, 100) == []
    assert table_words("level\tleft\ttop\twidth\theight\ttext\n1\t0\t0\t100\t100\t\n", 100, 100) == []
