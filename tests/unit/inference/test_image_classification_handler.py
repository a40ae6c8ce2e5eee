"""The handler of image-classification: what it refuses, hands on and answers."""

from typing import Any

import numpy as np
import pytest

from src.core.errors import InvalidInputError
from src.inference.models import ImageClassificationHandler

PIXELS = np.zeros((2, 3, 3), dtype=np.uint8)
DECODED = {"pixels": PIXELS, "type": "png"}
CAT = {"labels": ["cat", "dog"], "scores": [0.9, 0.1]}
DOG = {"labels": ["dog", "cat"], "scores": [0.7, 0.3]}


@pytest.mark.parametrize(
    ("data", "message"), [({}, "missing field 'image'"), ({"image": []}, "field 'image' is an empty list")]
)
def test_bad_data_is_refused_in_words(data: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"Invalid input format: {message}"):
        ImageClassificationHandler().preprocess(data, {})


def test_what_is_not_decoded_yet_is_let_through() -> None:
    ImageClassificationHandler().validate_input({"image": "cat.jpg"}, ["image"])


def test_pictures_go_to_the_model_as_pixels() -> None:
    prepared = ImageClassificationHandler().preprocess({"image": [DECODED, DECODED]}, {"top_k": 3})
    assert [pixels is PIXELS for pixels in prepared["inputs"]["images"]] == [True, True]
    assert prepared["options"] == {"top_k": 3}


def test_one_picture_has_labels_and_scores() -> None:
    answer = ImageClassificationHandler().postprocess({"response": [CAT], "metadata": {"model": "m"}}, {})
    assert answer == {**CAT, "metadata": {"model": "m"}}


def test_of_several_pictures_each_has_its_own_and_the_first_ones_stand_alone_too() -> None:
    answer = ImageClassificationHandler().postprocess({"response": [CAT, DOG], "metadata": {}}, {})
    assert answer == {**CAT, "images": [CAT, DOG], "metadata": {}}


def test_its_results_may_be_kept() -> None:
    assert ImageClassificationHandler.deterministic({})
