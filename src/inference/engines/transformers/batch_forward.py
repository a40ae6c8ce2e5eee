"""Batches of models that answer in one step: encoded inputs, padded where the model bears it, a few calls for all."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.batch_trial import BatchTrial, Steps
from src.inference.engines.transformers.collation import Encoded, media_shape, structure, token_count

Output = TypeVar("Output")
Row = TypeVar("Row")
_Encoding = tuple[int, Encoded]

LENGTHS = "inputs of different lengths"
# Inputs that go through the model together: more would need memory and gain no time.
_TOGETHER = 32
# How much padding may add to what a batch costs, as a share of what its inputs cost.
_MOST_PADDING = 0.25


class BatchForward(Generic[Output]):
    """Runs encoded inputs together, as far as the model's answers stay the same.

    `run`: encodings → an output for each; `logits`: what of an output two runs must agree in; `example`: encodings of
    different lengths to try the model with.
    """

    def __init__(
        self,
        trial: BatchTrial,
        run: Callable[[Sequence[Encoded]], Sequence[Output]],
        logits: Callable[[Output], Steps],
        example: Callable[[], Sequence[Encoded]] | None = None,
    ) -> None:
        self._trial, self._run, self._logits = trial, run, logits
        self._example = None if example is None else lambda: [(-1, encoded) for encoded in example()]

    def outputs(self, encodings: Sequence[Encoded]) -> list[Output]:
        """Returns the output of each; raises `CancelledError` once nobody waits for any of them."""
        groups: dict[Any, list[_Encoding]] = {}
        for place, encoded in enumerate(encodings):
            # What is no mask tells the model nothing of padding.
            shape = () if has_mask(encoded) else media_shape(encoded)
            groups.setdefault((structure(encoded), shape), []).append((place, encoded))
        found: dict[int, Output] = {}
        for rows in groups.values():
            for batch in self._trial.batches(rows, {LENGTHS: _size}, self._tried, self._example):
                for some in of_like_cost(batch, _cost, _TOGETHER, _MOST_PADDING):
                    if stop_requested():
                        raise CancelledError("the work was stopped")
                    outputs = self._run([encoded for _, encoded in some])
                    found |= {place: output for (place, _), output in zip(some, outputs, strict=True)}
        return [found[place] for place in range(len(encodings))]

    def _tried(self, rows: Sequence[_Encoding]) -> list[Steps]:
        return [self._logits(output) for output in self._run([encoded for _, encoded in rows])]


def has_mask(encoded: Encoded) -> bool:
    """Whether an encoding tells what of it is padding."""
    return any("mask" in name for name in encoded)


def _size(row: _Encoding) -> Any:
    return token_count(row[1]), media_shape(row[1])


def _cost(row: _Encoding) -> int:
    return max(int(value.numel()) for value in row[1].values() if isinstance(value, torch.Tensor))


def of_like_cost(
    rows: Sequence[Row], cost: Callable[[Row], int], most: int, most_padding: float
) -> Iterator[list[Row]]:
    """Yields at most so many rows together, by cost, that padding adds no more than a share of what they cost alone."""
    batch, spent = list[Row](), 0
    for row in sorted(rows, key=cost):
        own = cost(row)
        if batch and (len(batch) == most or own * (len(batch) + 1) > (1 + most_padding) * (spent + own)):
            yield batch
            batch, spent = [], 0
        batch.append(row)
        spent += own
    if batch:
        yield batch
