"""Handlers: the base class and text generation."""

from typing import Any

import pytest

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler
from src.inference.models.text_generation import TextGenerationHandler

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]


class CustomTaskHandler(BaseModelHandler):
    """As documented: its own preprocess, the base's checks."""

    def preprocess(self, data: Any, options: Any) -> Any:
        self.validate_input(data, ["custom_input"])
        return {"inputs": data["custom_input"], "options": options}


@pytest.mark.parametrize(
    ("class_name", "task"),
    [
        ("CustomTaskHandler", "custom-task"),
        ("OCRHandler", "ocr"),
        ("VLMHandler", "vlm"),
        ("ASRHandler", "asr"),
        ("TextGenerationHandler", "text-generation"),
        ("AudioClassificationHandler", "audio-classification"),
        ("ImageClassificationHandler", "image-classification"),
        ("OCRTableHandler", "ocr-table"),
        ("Wav2VecHandler", "wav2-vec"),
        ("Translator", "translator"),
    ],
)
def test_a_task_is_named_after_its_handler(class_name: str, task: str) -> None:
    assert type(class_name, (BaseModelHandler,), {}).task_name() == task


def test_a_task_named_by_the_class_attribute_wins() -> None:
    assert type("OddHandler", (BaseModelHandler,), {"task": "text-generation"}).task_name() == "text-generation"


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidInputError, match="Invalid input format: missing field 'custom_input' in data") as caught:
        CustomTaskHandler().preprocess({"inputs": "x"}, {})
    assert caught.value.details == {"missing_fields": ["custom_input"], "given_fields": ["inputs"]}


def test_every_missing_field_is_named() -> None:
    with pytest.raises(InvalidInputError, match="missing field 'image', 'prompt' in data"):
        BaseModelHandler().validate_input({"prompt": None}, ["image", "prompt"])


def test_an_empty_value_is_not_missing() -> None:
    BaseModelHandler().validate_input({"a": "", "b": 0, "c": []}, ["a", "b", "c"])


@pytest.mark.parametrize("data", ["text", None, ["inputs"], 5])
def test_data_that_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"data must be an object, not {type(data).__name__}"):
        BaseModelHandler().validate_input(data, [])


def test_bad_input_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Invalid input format") as caught:
        CustomTaskHandler().preprocess({}, {})
    assert isinstance(caught.value, InvalidInputError)
    assert caught.value.error_type == "ValueError"


def test_the_base_passes_data_and_options_on() -> None:
    assert BaseModelHandler().preprocess({"a": 1}, {"b": 2}) == {"inputs": {"a": 1}, "options": {"b": 2}}


@pytest.mark.parametrize(
    ("raw", "result"), [({"x": 1}, {"x": 1}), ("text", {"response": "text"}), ([1], {"response": [1]})]
)
def test_the_base_wraps_a_plain_value(raw: Any, result: dict[str, Any]) -> None:
    assert BaseModelHandler().postprocess(raw, {}) == result


@pytest.mark.parametrize("inputs", ["請解釋什麼是深度學習", MESSAGES])
def test_text_generation_takes(inputs: Any) -> None:
    assert TextGenerationHandler().preprocess({"inputs": inputs}, {"top_k": 1}) == {
        "inputs": inputs,
        "options": {"top_k": 1},
    }


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("", "'inputs' is empty"),
        (None, "missing field 'inputs'"),
        (5, "must be a text or a list of messages .* not int"),
        ({"role": "user", "content": "x"}, "not dict"),
        ([], "not list"),
        (["text"], "message 0 of field 'inputs' needs the texts 'role' and 'content'"),
        ([*MESSAGES, {"role": "user"}], "message 2 "),
        ([{"role": "user", "content": None}], "message 0 "),
        ([{"role": 1, "content": "x"}], "message 0 "),
    ],
)
def test_text_generation_refuses(inputs: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        TextGenerationHandler().validate_input({"inputs": inputs}, TextGenerationHandler.required_fields)


@pytest.mark.parametrize(
    ("response", "result"),
    [
        ("one", {"generated_text": "one"}),
        (["one"], {"generated_text": "one"}),
        (["one", "two"], {"generated_text": "one", "generated_texts": ["one", "two"]}),
    ],
)
def test_the_first_text_is_the_answer_and_several_are_all_listed(response: Any, result: dict[str, Any]) -> None:
    raw = {"response": response, "metadata": {"tokens": 3}}
    assert TextGenerationHandler().postprocess(raw, {}) == {**result, "metadata": {"tokens": 3}}
