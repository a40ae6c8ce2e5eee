"""Requests that leave early or fail while others run with them: the others never notice."""

from collections.abc import Callable
from typing import Any

import pytest

from src.core.errors import EngineError, InsufficientMemoryError, PlatformError
from tests.stepping import GREEDY, REQUESTS, add, drained, load, same, scheduled
from tests.tiny_models import tiny_llama

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random Llama, one token a byte."""
    return load(tiny_llama(tmp_path_factory.mktemp("models") / "tiny", context=512))


@pytest.fixture(scope="module")
def expected(tiny: Any) -> list[Any]:
    """What each of the requests is answered alone."""
    return [tiny.run(*asked) for asked in REQUESTS]


# ---------------------------------------------------------------------- who goes early


@pytest.mark.parametrize("key", range(5))
def test_a_cancelled_request_frees_its_slot_and_nobody_notices(tiny: Any, key: int) -> None:
    scheduler = scheduled(tiny, _part_tokens=16)
    asked = [("x" * length, {**GREEDY, "max_new_tokens": 12}) for length in (5, 9, 2, 60, 7)]
    for number, each in enumerate(asked):
        add(scheduler, number, each)
    for _ in range(4):  # one of them is being read now, one waits
        scheduler.step()
    scheduler.cancel(key)
    scheduler.cancel(99)
    assert len(scheduler) == 4
    answers = drained(scheduler)
    assert sorted(answers) == [number for number in range(5) if number != key]
    assert all(answers[number] == tiny.run(*asked[number]) for number in answers)


def test_whoever_gets_a_piece_may_cancel(tiny: Any, expected: list[Any]) -> None:
    scheduler, said = scheduled(tiny), list[str]()

    def first_is_enough(piece: str) -> None:
        said.append(piece)
        scheduler.cancel(1)

    add(scheduler, 0, REQUESTS[0])
    add(scheduler, 1, ("?", {**GREEDY, "max_new_tokens": 30}), first_is_enough)
    add(scheduler, 2, REQUESTS[2])
    answers = drained(scheduler)
    assert len(said) == 1
    assert sorted(answers) == [0, 2]
    assert all(same(answers[key], expected[key]) for key in answers)


# ---------------------------------------------------------------------- what goes wrong


def failing(message: str, *, times: int, when: Callable[[Any], bool] = lambda inputs: True) -> Callable[..., None]:
    """Returns what makes a forward pass fail so many times."""
    left = [times]

    def fail(module: Any, args: Any, kwargs: Any) -> None:
        if left[0] and when(kwargs["input_ids"]):
            left[0] -= 1
            raise RuntimeError(message)

    return fail


def test_an_error_in_a_step_fails_those_inside_and_no_others(tiny: Any, expected: list[Any]) -> None:
    scheduler = scheduled(tiny)
    add(scheduler, 0, REQUESTS[0])
    add(scheduler, 1, REQUESTS[1])
    scheduler.step()
    scheduler.step()
    hook = tiny.model.register_forward_pre_hook(failing("broken", times=1), with_kwargs=True)
    try:
        answers = drained(scheduler)
    finally:
        hook.remove()
    assert [type(answers[key]) for key in (0, 1)] == [EngineError, EngineError]
    assert "broken" in answers[0].message
    add(scheduler, 2, REQUESTS[2])
    assert drained(scheduler)[2] == expected[2]


@pytest.mark.parametrize("mixes", [True, False])
def test_a_prompt_that_cannot_be_read_fails_alone(tiny: Any, mixes: bool) -> None:
    scheduler = scheduled(tiny)
    scheduler._support._mixes = mixes
    bad = tiny.processor("!")["input_ids"][0]
    hook = tiny.model.register_forward_pre_hook(
        failing("no such token", times=99, when=lambda ids: bool((ids == bad).any())), with_kwargs=True
    )
    try:
        add(scheduler, 0, ("a", {**GREEDY, "max_new_tokens": 9, "eos_token_id": 1}))
        scheduler.step()
        for key, text in enumerate(("b", "!", "c"), 1):
            add(scheduler, key, (text, {**GREEDY, "max_new_tokens": 3, "eos_token_id": 1}))
        answers = drained(scheduler)
    finally:
        hook.remove()
    assert isinstance(answers.pop(2), EngineError)
    assert sorted(answers) == [0, 1, 3]
    assert not any(isinstance(answer, PlatformError) for answer in answers.values())


def test_an_option_that_fails_fails_its_own_request(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    def fail(*args: Any) -> None:
        raise ValueError("no penalty today")

    monkeypatch.setattr(RepetitionPenaltyLogitsProcessor, "__call__", fail)
    scheduler = scheduled(tiny)
    for key, options in enumerate(({}, {"repetition_penalty": 1.5}, {"seed": 1})):
        add(scheduler, key, ("Hi", {**options, "max_new_tokens": 4}))
    answers = drained(scheduler)
    assert "no penalty today" in answers[1].message
    assert [isinstance(answers[key], dict) for key in range(3)] == [True, False, True]


def test_whoever_cannot_take_a_piece_fails_alone(tiny: Any, expected: list[Any]) -> None:
    def closed(piece: str) -> None:
        raise BrokenPipeError

    scheduler = scheduled(tiny)
    add(scheduler, 0, REQUESTS[0], closed)
    add(scheduler, 1, REQUESTS[2])
    answers = drained(scheduler)
    assert isinstance(answers[0], EngineError)
    assert answers[1] == expected[2]


@pytest.mark.parametrize(("times", "most"), [(1, 0), (99, 2)])
def test_out_of_memory_fewer_run_at_once_with_the_same_answers(
    tiny: Any, expected: list[Any], times: int, most: int
) -> None:
    scheduler = scheduled(tiny)
    for key, asked in enumerate(REQUESTS):
        add(scheduler, key, asked)
    answers = dict(done for _ in range(8) for done in scheduler.step())
    fail = failing("out of memory", times=times, when=lambda ids: bool(ids.shape[0] > most))
    hook = tiny.model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        while scheduler._allowed_rows == scheduler._max_rows:
            answers |= dict(scheduler.step())
        answers |= drained(scheduler)
    finally:
        hook.remove()
    assert scheduler._allowed_rows == scheduler._max_rows, "once nobody is inside, it tries again with all"
    assert [key for key in range(len(REQUESTS)) if not same(answers[key], expected[key])] == []


def test_out_of_memory_alone_is_said(tiny: Any) -> None:
    scheduler = scheduled(tiny)
    add(scheduler, 0, REQUESTS[0])
    hook = tiny.model.register_forward_pre_hook(failing("out of memory", times=1), with_kwargs=True)
    try:
        answers = drained(scheduler)
    finally:
        hook.remove()
    assert isinstance(answers[0], InsufficientMemoryError)


def test_a_cache_that_grew_large_is_let_go_once_nobody_is_inside(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from src.inference.engines.transformers import step_scheduler

    scheduler = scheduled(tiny)
    add(scheduler, 0, REQUESTS[2])
    drained(scheduler)
    kept = scheduler._slots
    assert kept.cache.total_bytes > 0
    monkeypatch.setattr(step_scheduler, "_SMALL_BYTES", kept.cache.total_bytes - 1)
    add(scheduler, 0, REQUESTS[2])
    drained(scheduler)
    assert scheduler._slots is None
