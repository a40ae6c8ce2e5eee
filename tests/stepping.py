"""Requests to run step by step, and what runs them to their ends."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

GREEDY = {"do_sample": False, "min_length": 0}
Asked = tuple[Any, dict[str, Any]]

REQUESTS: Sequence[Asked] = (
    ("Hello there", {**GREEDY, "max_new_tokens": 20, "logprobs": True}),
    ("?", {"seed": 5, "max_new_tokens": 30}),
    ("what is to be said of a long prompt " * 6, {**GREEDY, "max_new_tokens": 12}),
    ("to be or not to be", {"seed": 9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "top_k": 20}),
    ("x", {**GREEDY, "max_new_tokens": 40, "stop": ["a", "Q"]}),
    ("yy", {"temperature": 1.5, "seed": 1, "top_p": 1.0, "top_k": 0, "max_new_tokens": 25, "logprobs": True}),
    ("zz", {**GREEDY, "repetition_penalty": 1.2, "min_length": 20, "max_new_tokens": 30, "eos_token_id": [7, 60, 200]}),
    ("again", {"seed": 5, "max_new_tokens": 1}),
    ([{"role": "user", "content": "Hi"}], {"seed": 2**40, "max_length": 60}),
)


def load(folder: Path) -> Any:
    from src.inference.engines.transformers.text_generation import CausalRunner

    return CausalRunner.load("tiny", folder, device="cpu", dtype="auto", trust_remote_code=False)


def scheduled(runner: Any, **settings: Any) -> Any:
    """A scheduler of its own; settings are put where its own ones are."""
    scheduler = runner.scheduler(lambda raw, options: raw)
    for name, value in settings.items():
        setattr(scheduler, name, value)
    return scheduler


def add(scheduler: Any, key: int, asked: Asked, emit: Callable[[str], None] | None = None) -> None:
    assert scheduler.takes(*asked)
    scheduler.add(key, *asked, emit)


def drained(scheduler: Any, most: int = 2000) -> dict[int, Any]:
    answers: dict[int, Any] = {}
    while len(scheduler):
        answers |= dict(scheduler.step())
        most -= 1
        assert most, "it never ends"
    return answers


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers are equal, log-probabilities as far as floats go."""
    told = [dict(answer["metadata"]) for answer in (one, other)]
    likely = [each.pop("logprobs", []) for each in told]
    return bool(
        (one["response"], one["warnings"], told[0]) == (other["response"], other["warnings"], told[1])
        and likely[0] == pytest.approx(likely[1], abs=1e-4)
    )
