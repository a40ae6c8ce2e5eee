"""Whose result is kept: asked for, deterministic, named by content."""

from dataclasses import replace
from typing import Any

import pytest

from src.core.settings_sections import ResultSettings
from src.inference.engines.base import BaseEngine
from src.inference.engines.ollama import OllamaEngine
from src.inference.engines.transformers import TransformersEngine
from src.inference.models import (
    AsrHandler,
    AudioClassificationHandler,
    DocumentAnalysisHandler,
    OcrHandler,
    TextGenerationHandler,
    VideoAnalysisHandler,
    VlmHandler,
)
from src.inference.models.base import BaseModelHandler
from src.inference.results import ResultCache
from src.inference.results_key import ResultOf
from src.inference.results_reuse import KeptResult, Lookup, ResultReuse
from src.inference.types import JsonObject

pytestmark = pytest.mark.anyio

MADE_BY = ResultOf("sha256:1", "demo", "text-generation", "transformers", "5.0", "a.Handler")
SAMPLING = (TextGenerationHandler, VlmHandler, VideoAnalysisHandler)
EXACT = (AsrHandler, OcrHandler, DocumentAnalysisHandler)


class SilentHandler(BaseModelHandler):
    """Says nothing about determinism."""


class SpeakingHandler(BaseModelHandler):
    """Says that it repeats itself."""

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        return True


class ForeignEngine(BaseEngine):
    """Takes any options."""

    name = "foreign"


@pytest.mark.parametrize("handler", SAMPLING)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"temperature": 0.1}, False),
        ({"do_sample": True}, False),
        ({"do_sample": False}, True),
        ({"temperature": 0.0}, True),
        ({"seed": 0}, True),
        ({"seed": 7, "temperature": 1.5}, True),
        ({"temperature": 0.0, "mirostat": 2}, False),
        ({"temperature": 0.0, "mirostat": 0}, True),
        ({"seed": None}, False),
    ],
)
def test_tasks_that_sample_are_kept_only_without_chance(
    handler: type[BaseModelHandler], options: JsonObject, expected: bool
) -> None:
    assert handler.deterministic(options) is expected


@pytest.mark.parametrize("handler", EXACT)
@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"do_sample": True}, False), ({"do_sample": True, "seed": 1}, True), ({"temperature": 0.9}, True)],
)
def test_tasks_with_one_right_answer_are_kept_unless_they_are_to_sample(
    handler: type[BaseModelHandler], options: JsonObject, expected: bool
) -> None:
    assert handler.deterministic(options) is expected


def test_a_classifier_is_always_kept() -> None:
    assert AudioClassificationHandler.deterministic({"do_sample": True})


@pytest.mark.parametrize(
    ("options", "by_model", "expected"),
    [
        ({}, None, False),
        ({}, True, True),
        ({"cache": True}, None, True),
        ({"cache": True}, False, True),
        ({"cache": False}, True, False),
        ({"cache": "yes"}, None, False),
    ],
)
def test_the_request_decides_before_the_model(options: JsonObject, by_model: bool | None, expected: bool) -> None:
    assert ResultReuse.wanted(options, TextGenerationHandler, by_model) is expected


def test_a_handler_that_says_nothing_keeps_the_option_to_itself() -> None:
    assert not ResultReuse.wanted({"cache": True}, SilentHandler, True)
    assert ResultReuse.wanted({"cache": True}, SpeakingHandler, None)


async def look_up(
    options: JsonObject,
    *,
    cache: ResultCache | None = None,
    made_by: ResultOf = MADE_BY,
    data: Any = "hello",
    handler: type[BaseModelHandler] = TextGenerationHandler,
    engine: type[BaseEngine] = TransformersEngine,
) -> Lookup:
    reuse = ResultReuse(cache or ResultCache(ResultSettings()))
    return await reuse.look_up(made_by, {"inputs": data}, options, handler, engine)


async def test_what_was_kept_is_found() -> None:
    cache, options = ResultCache(ResultSettings()), {"cache": True, "do_sample": False}
    first = await look_up(options, cache=cache)
    assert (first.found, first.warnings, first.digest) == (None, (), MADE_BY.digest)
    kept = KeptResult({"generated_text": "72"}, ["cut"], "5.0", "cpu", "float32")
    await first.keep(kept)
    assert (await look_up({**options, "timeout": 5}, cache=cache)).found == kept
    assert (await look_up(options, cache=cache, data="other")).found is None
    assert (await look_up({**options, "max_new_tokens": 3}, cache=cache)).found is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"options": {"cache": True}}, "drawn at random"),
        ({"made_by": replace(MADE_BY, digest=None)}, "no digest"),
        ({"data": object()}, "cannot be recognized"),
        ({"engine": ForeignEngine}, "engine 'foreign' does not say"),
    ],
)
async def test_who_asks_for_what_cannot_be_is_told_why(changed: dict[str, Any], words: str) -> None:
    cache = ResultCache(ResultSettings())
    arguments = {"options": {"cache": True, "seed": 1}, **changed}
    lookup = await look_up(**arguments, cache=cache)
    assert lookup.found is None
    [warning] = lookup.warnings
    assert warning.startswith("option 'cache' has no effect: ")
    assert words in warning
    await lookup.keep(KeptResult({}))
    assert cache.stats()["entries"] == 0


async def test_an_empty_lookup_keeps_nothing() -> None:
    await Lookup().keep(KeptResult({}))


async def test_a_model_that_is_set_to_keep_results_says_nothing_of_those_that_it_does_not() -> None:
    assert (await look_up({})).warnings == ()


async def test_a_handler_of_ones_own_speaks_for_its_engine() -> None:
    lookup = await look_up({"cache": True}, handler=SpeakingHandler, engine=ForeignEngine)
    assert lookup.key is not None


async def test_the_engines_of_the_house_say_what_their_options_mean() -> None:
    for engine in (OllamaEngine, TransformersEngine):
        assert (await look_up({"seed": 1}, engine=engine)).key is not None


GOOD = KeptResult({"a": 1}, ["w"], None, "cpu", "float32").as_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"result": {}},
        {**GOOD, "more": 1},
        {**GOOD, "result": "text"},
        {**GOOD, "warnings": "text"},
        {**GOOD, "warnings": [1]},
        {**GOOD, "device": 1},
    ],
)
def test_a_value_of_another_form_is_no_result(value: Any) -> None:
    assert KeptResult.from_json(GOOD) is not None
    assert KeptResult.from_json(value) is None
