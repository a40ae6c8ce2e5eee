"""Case: one row of the matrix. How to make its model is in `weights.py` and `tokens.py`, its inputs in `media.py`.

A module `rows_<topic>.py` has `CASES`, and `NOT_TRIED`: (task, architecture) → the reason in words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
"""How far a number over HTTP may be from the direct call's."""
CHANGED = 1e-3
"""How far a changed input must at least move one of the numbers."""
GREEDY: Mapping[str, Any] = {"max_new_tokens": 8, "min_length": 0, "do_sample": False, "logprobs": True}
"""Options of rows that generate."""

Data = dict[str, Any]
Change = Callable[[Data], Data]
NotTried = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Outcome:
    """What a model answered: a text or labels, and log-probabilities of the generated tokens, or scores."""

    answer: str | list[str]
    numbers: list[float]


@dataclass(frozen=True)
class Case:
    """One architecture doing one task.

    `build` writes a model folder; `data` has the request's fields with arrays in place of files (`media.py` encodes
    them); `changes`: what is changed ("image", "audio", "frame", "page", "prompt") → the data with only that changed;
    `direct` asks transformers without anything of `src`.
    """

    architecture: str
    task: str
    build: Callable[[Path], None]
    data: Callable[[], Data]
    changes: Mapping[str, Change]
    direct: Callable[[Path, Data], Outcome]
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    @property
    def name(self) -> str:
        """What a table and a command line call it."""
        return f"{self.task}: {self.architecture}"


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns by how much two rows of numbers differ at most; infinite where one is longer than the other."""
    if len(first) != len(second):
        return float("inf")
    return max((abs(a - b) for a, b in zip(first, second, strict=True)), default=0.0)


def with_field(name: str, value: Callable[[], Any]) -> Change:
    """Returns a change that replaces one field."""
    return lambda data: {**data, name: value()}
