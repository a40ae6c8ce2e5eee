"""The one parse of a request body: what is taken, and what is told of the rest."""

import json
from typing import Any

import pytest

from src.api.inference_api import parse
from src.core.errors import ValidationError

GOOD: dict[str, Any] = {"task": "t", "engine": "e", "model_name": "m", "data": {"inputs": "你好"}}


def body(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


@pytest.mark.parametrize("options", [None, {}, {"temperature": 0.5, "nested": [1]}])
def test_options_may_be_an_object_or_null(options: Any) -> None:
    assert parse(body(options=options)) == {**GOOD, "options": options}


def test_options_may_be_missing() -> None:
    assert parse(body()) == GOOD


def test_data_is_passed_on_as_it_is() -> None:
    data = {"a": [1, 2.5, None, True], "深": {"度": "學習 🤖"}}
    assert parse(body(data=data))["data"] == data


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"not json", b"{'task': 1}", b'{"task": NaN}', b"\xff\xfe{}", b'{"a": "\\ud800"}', b"[" * 100_000],
    ids=["empty", "cut", "text", "Python", "NaN", "no UTF-8", "lone surrogate", "deep"],
)
def test_a_body_that_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ValidationError, match="the body is no JSON"):
        parse(raw)


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b"5", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ValidationError, match="must be an object with task, engine, model_name, data and options"):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (without("task"), "'task' must be a text"),
        (without("engine"), "'engine' must be a text"),
        (without("model_name"), "'model_name' must be a text"),
        (without("data"), "'data' must be an object"),
        (body(task=None), "'task' must be a text"),
        (body(task=5), "'task' must be a text"),
        (body(engine=["ollama"]), "'engine' must be a text"),
        (body(model_name=True), "'model_name' must be a text"),
        (body(data="text"), "'data' must be an object"),
        (body(data=[]), "'data' must be an object"),
        (body(data=None), "'data' must be an object"),
        (body(options=[]), "'options' must be an object"),
        (body(options="{}"), "'options' must be an object"),
        (body(options=False), "'options' must be an object"),
        (body(option={}), "unknown field 'option'"),
        (body(modelName="m"), "unknown field 'modelName'"),
    ],
)
def test_a_wrong_field_is_named(raw: bytes, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(raw)
    assert (caught.value.message, caught.value.details) == (problem, {"problems": [problem]})


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        parse(b'{"task": 1, "option": {}}')
    assert caught.value.details["problems"] == [
        "'task' must be a text",
        "'engine' must be a text",
        "'model_name' must be a text",
        "'data' must be an object",
        "unknown field 'option'",
    ]
