"""The handler of document analysis: what it refuses, what it asks of the decoder, what it answers."""

from typing import Any

import numpy as np
import pytest

from src.core.errors import InvalidInputError
from src.inference.models.document_analysis import DocumentAnalysisHandler

handler = DocumentAnalysisHandler()
REQUIRED = DocumentAnalysisHandler.required_fields


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"query": "What?"}, "missing field 'document' in data"),
        ({"document": "a.pdf"}, "missing field 'query' in data"),
        ({}, "missing field 'document', 'query' in data"),
        ({"document": "a.pdf", "query": ""}, "field 'query' is empty"),
        ({"document": "a.pdf", "query": " \n"}, "field 'query' is empty"),
        ({"document": "a.pdf", "query": ["What?"]}, "field 'query' must be a text, not list"),
    ],
)
def test_input_that_cannot_be_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        handler.validate_input(data, REQUIRED)


@pytest.mark.parametrize("document", ["a.pdf", b"%PDF", ["a.png", "b.png"], {"pages": []}])
def test_a_document_is_taken_raw_or_decoded(document: Any) -> None:
    handler.validate_input({"document": document, "query": "What?"}, REQUIRED)


@pytest.mark.parametrize(
    ("options", "facts", "wishes"),
    [
        ({}, {}, {"words": True, "images": True}),
        ({}, {"needs_words": True, "needs_images": False}, {"words": True, "images": True}),
        ({}, {"needs_words": False, "needs_images": True, "dpi": 219.0}, {"words": False, "images": True, "dpi": 219}),
        ({"pages": [2, 0]}, {"needs_words": True}, {"words": True, "images": True, "pages": [2, 0]}),
    ],
)
def test_asks_the_decoder_for_what_the_model_reads(
    options: dict[str, Any], facts: dict[str, Any], wishes: dict[str, Any]
) -> None:
    assert handler.media_wishes("document", options, facts) == wishes


def test_hands_the_decoded_pages_on() -> None:
    page = {"number": 3, "words": ("a",), "boxes": np.zeros((1, 4)), "image": None, "has_text": True}
    document = {"pages": [page], "page_count": 9, "dpi": None, "type": "application/pdf"}
    prepared = handler.preprocess({"document": document, "query": "What?"}, {"pages": [3]})
    assert prepared == {
        "inputs": {"query": "What?", "pages": [page], "page_count": 9},
        "options": {"pages": [3]},
    }


def test_answers_with_what_the_model_knows() -> None:
    raw = {"response": "12.50", "score": 0.5, "page": 1, "box": [1, 2, 3, 4], "metadata": {"model": "m"}}
    answer = {"answer": "12.50", "score": 0.5, "page": 1, "box": [1, 2, 3, 4], "metadata": {"model": "m"}}
    assert handler.postprocess(raw, {}) == answer
    assert handler.postprocess({"response": "12.50", "metadata": {}}, {}) == {
        "answer": "12.50", "score": None, "page": None, "box": None, "metadata": {},
    }  # fmt: skip
