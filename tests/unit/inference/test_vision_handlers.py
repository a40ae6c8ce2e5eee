"""Handlers of vlm and ocr: what they refuse, what they hand on, what they answer."""

from typing import Any

import numpy as np
import pytest

from src.core.errors import InvalidInputError
from src.inference.models import OcrHandler, VlmHandler
from src.inference.models.base import BaseModelHandler

PIXELS = np.zeros((2, 3, 3), dtype=np.uint8)
DECODED = {"pixels": PIXELS, "type": "png"}


@pytest.mark.parametrize(
    ("handler", "data", "message"),
    [
        (VlmHandler, {"image": "a.png"}, "missing field 'prompt'"),
        (VlmHandler, {"prompt": "?"}, "missing field 'image'"),
        (VlmHandler, {"image": "a.png", "prompt": 3}, "field 'prompt' must be a text, not int"),
        (VlmHandler, {"image": "a.png", "prompt": " "}, "field 'prompt' is empty"),
        (VlmHandler, {"image": [], "prompt": "?"}, "field 'image' is an empty list"),
        (OcrHandler, {}, "missing field 'image'"),
        (OcrHandler, {"image": []}, "field 'image' is an empty list"),
        (OcrHandler, {"image": "a.png", "prompt": ["x"]}, "field 'prompt' must be a text, not list"),
        (OcrHandler, {"image": "a.png", "prompt": ""}, "field 'prompt' is empty"),
    ],
)
def test_bad_data_is_refused_in_words(handler: type[BaseModelHandler], data: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"Invalid input format: .*{message}"):
        handler().validate_input(data, handler.required_fields)


def test_decoded_pictures_go_to_the_model_as_pixels() -> None:
    prepared = VlmHandler().preprocess({"image": [DECODED], "prompt": "?"}, {"seed": 1})
    assert prepared["inputs"]["images"][0] is PIXELS
    assert (prepared["inputs"]["prompt"], prepared["options"]) == ("?", {"seed": 1})
    assert OcrHandler().preprocess({"image": [DECODED]}, {})["inputs"]["prompt"] is None


def test_files_for_a_server_go_in_the_users_message() -> None:
    prepared = VlmHandler().preprocess({"image": [b"png1", b"png2"], "prompt": "?"}, {})
    assert prepared["inputs"] == [{"role": "user", "content": "?", "images": [b"png1", b"png2"]}]


def test_an_answer_that_was_chosen_has_its_rivals() -> None:
    raw = {"response": "two", "answers": ["two", "one"], "scores": [0.9, 0.2], "metadata": {"model": "m"}}
    assert VlmHandler().postprocess(raw, {}) == {
        "description": "two", "answers": ["two", "one"], "scores": [0.9, 0.2], "metadata": {"model": "m"},
    }  # fmt: skip


def test_the_text_of_one_picture_is_text_alone() -> None:
    line = {"text": "a", "box": [0, 0, 5, 5]}
    answer = OcrHandler().postprocess({"response": [{"text": "a", "lines": [line]}], "metadata": {}}, {})
    assert answer == {"text": "a", "lines": [line], "metadata": {}}
    assert OcrHandler().postprocess({"response": [{"text": "a"}], "metadata": {}}, {}) == {"text": "a", "metadata": {}}


def test_several_pictures_have_a_blank_line_between_their_texts_and_numbered_lines() -> None:
    pages = [
        {"text": "a", "lines": [{"text": "a"}]},
        {"text": "", "lines": []},
        {"text": "c", "lines": [{"text": "c"}]},
    ]
    answer = OcrHandler().postprocess({"response": pages, "metadata": {}}, {})
    assert answer["text"] == "a\n\n\n\nc"
    assert answer["texts"] == ["a", "", "c"]
    assert answer["lines"] == [{"text": "a", "image": 0}, {"text": "c", "image": 2}]


def test_fields_of_several_pictures_are_a_list() -> None:
    one = {"response": [{"text": "9", "fields": {"total": "9"}}], "metadata": {}}
    assert OcrHandler().postprocess(one, {})["fields"] == {"total": "9"}
    two = {"response": [*one["response"], {"text": ""}], "metadata": {}}  # type: ignore[misc]
    assert OcrHandler().postprocess(two, {})["fields"] == [{"total": "9"}, {}]
