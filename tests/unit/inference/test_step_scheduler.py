"""Requests that run together step by step: the answers of each alone, whoever else is inside."""

import random
from typing import Any

import pytest

from src.core.errors import InvalidInputError
from src.inference.engines.base import emitting
from tests.stepping import GREEDY, REQUESTS, Asked, add, drained, load, same, scheduled
from tests.tiny_models import scripted_llama, tiny_llama

pytestmark = pytest.mark.xdist_group("torch")

TEXT = "abcdefghijé€ klmnop"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random Llama, one token a byte."""
    return load(tiny_llama(tmp_path_factory.mktemp("models") / "tiny", context=512))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that says `TEXT` and ends."""
    return load(scripted_llama(tmp_path_factory.mktemp("models") / "scripted", TEXT))


@pytest.fixture(scope="module")
def expected(tiny: Any) -> list[Any]:
    """What each of the requests is answered alone."""
    return [tiny.run(*asked) for asked in REQUESTS]


# ---------------------------------------------------------------------- the same answers


@pytest.mark.parametrize("arrival", range(6))
def test_answers_are_those_of_each_request_alone(tiny: Any, expected: list[Any], arrival: int) -> None:
    chance, scheduler = random.Random(arrival), scheduled(tiny)
    order = chance.sample(range(len(REQUESTS)), len(REQUESTS))
    answers: dict[int, Any] = {}
    for key in order:
        add(scheduler, key, REQUESTS[key])
        for _ in range(chance.choice((0, 0, 1, 3, 8))):
            answers |= dict(scheduler.step())
    answers |= drained(scheduler)
    assert [key for key in answers if not same(answers[key], expected[key])] == []
    assert len(answers) == len(REQUESTS)


@pytest.mark.parametrize("mixes", [True, False])
@pytest.mark.parametrize("part", [1, 7, 64])
def test_long_prompts_are_read_in_parts_between_the_tokens_of_others(tiny: Any, part: int, mixes: bool) -> None:
    asked = [("x" * length, {**GREEDY, "max_new_tokens": 30}) for length in (3, 150, 90)]
    scheduler = scheduled(tiny, _part_tokens=part)
    scheduler._support._mixes = mixes
    add(scheduler, 0, asked[0])
    for _ in range(3 if part == 1 else 1):
        scheduler.step()
    for key in (1, 2):
        add(scheduler, key, asked[key])
    for _ in range(4):
        scheduler.step()
    made = len(scheduler._rows[0].answer)
    assert made == (5 if mixes else 3), "whoever runs goes on while the others are read"
    answers = drained(scheduler)
    assert [answers[key]["response"] for key in (1, 2)] == [tiny.run(*each)["response"] for each in asked[1:]]


def test_prompts_that_wait_together_are_read_together(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from src.inference.engines.transformers.slot_model import SlotModel

    read: list[int] = []
    original = SlotModel.read
    monkeypatch.setattr(
        SlotModel,
        "read",
        lambda self, first, texts, past=0: read.append(len(texts)) or original(self, first, texts, past),
    )
    scheduler = scheduled(tiny, _packed_tokens=12)
    assert scheduler._support.together
    add(scheduler, 0, ("x", {**GREEDY, "max_new_tokens": 1}))  # so that the memory of a token is known
    drained(scheduler)
    read.clear()
    asked = [("x" * length, {**GREEDY, "max_new_tokens": 1}) for length in (4, 5, 3, 2, 30, 1)]
    for key, each in enumerate(asked):
        add(scheduler, key, each)
    answers = drained(scheduler)
    assert read == [3, 1, 1, 1]
    assert [answers[key]["response"] for key in range(6)] == [tiny.run(*each)["response"] for each in asked]


def test_a_seed_decides_in_any_company(tiny: Any) -> None:
    asked: Asked = ("Hi", {"seed": 3, "max_new_tokens": 40, "min_length": 0})
    scheduler = scheduled(tiny)
    for key in range(5):
        add(scheduler, key, asked if key % 2 else ("Hi", {"max_new_tokens": 40}))
    answers = drained(scheduler)
    assert answers[1] == answers[3] == tiny.run(*asked)
    assert answers[0]["response"] != answers[2]["response"]


def test_no_more_than_the_rows_run_at_once(tiny: Any, expected: list[Any]) -> None:
    scheduler = scheduled(tiny, _allowed_rows=2, _max_rows=2)
    for key, asked in enumerate(REQUESTS):
        add(scheduler, key, asked)
    answers: dict[int, Any] = {}
    while len(scheduler):
        answers |= dict(scheduler.step())
        assert len(scheduler._rows) <= 2
    assert all(same(answers[key], expected[key]) for key in range(len(REQUESTS)))


def test_a_request_waits_for_the_memory_of_others(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from src.inference.engines.transformers import step_scheduler

    monkeypatch.setattr(step_scheduler, "_SMALL_BYTES", 0)
    scheduler = scheduled(tiny)
    scheduler._free_bytes = lambda: 0
    for key in range(3):
        add(scheduler, key, ("x" * 30, {**GREEDY, "max_new_tokens": 10}))
    answers: dict[int, Any] = {}
    while len(scheduler):
        answers |= dict(scheduler.step())
        assert len(scheduler._rows) <= 1
    assert len(answers) == 3


# ---------------------------------------------------------------------- what comes out and in


def test_an_answer_is_the_runners_with_the_engines_warnings(tiny: Any) -> None:
    options = {**GREEDY, "max_new_tokens": 3, "language": "en", "batch_size": 4, "early_stopping": True}
    scheduler = tiny.scheduler(lambda raw, given: {**raw, "noted": given})
    add(scheduler, 7, ("Hi", options))
    assert drained(scheduler) == {7: {**tiny.run("Hi", options), "noted": options}}


def test_the_engine_gives_the_scheduler_and_its_own_warnings(tiny: Any) -> None:
    from src.inference.engines.transformers.engine import TransformersEngine

    engine, options = TransformersEngine(), {**GREEDY, "max_new_tokens": 3, "trust_remote_code": True}
    scheduler = engine.scheduler(tiny)
    scheduler.add(1, "Hi", options, None)
    answer = drained(scheduler)[1]
    assert answer == engine.infer(tiny, "Hi", options)
    assert "trust_remote_code" in answer["warnings"][0]


def test_what_has_an_encoder_has_no_scheduler(tiny: Any) -> None:
    from src.inference.engines.transformers.text_generation import Seq2SeqRunner

    assert Seq2SeqRunner("tiny", tiny.model, tiny.processor).scheduler(lambda raw, options: raw) is None


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ("x" * 600, {"max_new_tokens": 5}),
        ("x" * 600, {}),
        ("x", {"max_length": 1}),
        ("x", {"pad_token_id": 10**6}),
        ("x", {"eos_token_id": [10**6]}),
        ("", {}),
    ],
)
def test_what_cannot_be_is_refused_as_it_is_alone(tiny: Any, inputs: str, options: dict[str, Any]) -> None:
    scheduler = scheduled(tiny)
    with pytest.raises(InvalidInputError) as alone:
        tiny.run(inputs, options)
    with pytest.raises(InvalidInputError) as inside:
        scheduler.add(1, inputs, options, None)
    assert (inside.value.message, inside.value.details) == (alone.value.message, alone.value.details)
    assert len(scheduler) == 0


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 3}])
def test_what_takes_several_rows_is_left_to_generate(tiny: Any, options: dict[str, Any]) -> None:
    assert not scheduled(tiny).takes("Hi", options)


@pytest.mark.parametrize("asked", REQUESTS)
def test_pieces_are_the_answer(tiny: Any, asked: Asked) -> None:
    scheduler, said = scheduled(tiny), list[str]()
    add(scheduler, 0, REQUESTS[0])
    add(scheduler, 1, asked, said.append)
    answers = drained(scheduler)
    assert "".join(said) == answers[1]["response"]


@pytest.mark.parametrize("stop", [[], ["hi"], ["é€"], ["€ k", "op"], ["nothing of the kind"]])
def test_pieces_come_with_their_tokens_and_end_before_a_stop_text(scripted: Any, stop: list[str]) -> None:
    options = {**GREEDY, **({"stop": stop} if stop else {})}
    said: list[str] = []
    scheduler = scheduled(scripted)
    add(scheduler, 0, ("?", options), said.append)
    scheduler.step()
    assert said == ["a"]
    answer = drained(scheduler)[0]
    assert answer == scripted.run("?", options)
    assert "".join(said) == answer["response"]


@pytest.mark.parametrize("options", [GREEDY, {"seed": 4}, {**GREEDY, "num_beams": 3}, {"num_return_sequences": 2}])
def test_generate_is_followed_in_pieces_too(tiny: Any, options: dict[str, Any]) -> None:
    options, said = {**options, "max_new_tokens": 20, "stop": ["Q"]}, list[str]()
    with emitting(said.append):
        response = tiny.run("Hi", options)["response"]
    several = isinstance(response, list)
    assert "".join(said) == (response[0] if several else response)
    assert len(said) == 1 if several or "num_beams" in options else len(said) > 1
