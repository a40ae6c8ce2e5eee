"""The trial of a model's batches: whether it answers several inputs together as it answers each alone.

Architectures differ in what padding does to them (positions, normalisation over time, convolutions), and none says so.
The first batch of each kind is therefore tried with two of its inputs, and the verdict is kept.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from src.core.errors import PlatformError
from src.inference.workers.failures import is_out_of_memory

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

Steps = Sequence[torch.Tensor]
"""The logits of one input: one tensor, or one for each token generated."""

_TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""How far logits may be apart, as a share of the largest of them: sums in another order, no more."""
_QUANTIZED = 0.1
_ALIKE = "inputs of one shape"


class BatchTrial:
    """Keeps which batches of one model give the answers that each of their inputs gets alone."""

    def __init__(self, name: str, model: Any) -> None:
        self._name = name
        quantized = bool(getattr(model, "is_quantized", False))
        self._tolerance = _QUANTIZED if quantized else _TOLERANCE.get(getattr(model, "dtype", None), _QUANTIZED)
        self._verdicts: dict[str, bool] = {}

    def batches(
        self,
        rows: Sequence[Row],
        aspects: Mapping[str, Callable[[Row], Any]],
        outputs: Callable[[Sequence[Row]], Sequence[Steps]],
        example: Callable[[], Sequence[Row]] | None = None,
    ) -> Iterator[list[Row]]:
        """Yields inputs in batches that the model answers as it does each alone.

        `aspects`: what inputs differ in (in words) → its size, which can be sorted; those that differ in what the model
        does not bear go in batches of one size. `outputs`: the logits of inputs that are run together. `example`:
        inputs to try the first aspect with, where those at hand may be too much alike to tell.
        """
        for number, (name, size) in enumerate(aspects.items()):
            sizes: dict[Any, list[Row]] = {}
            for row in rows:
                sizes.setdefault(size(row), []).append(row)
            if len(sizes) < 2:
                continue
            pair: Callable[[], Sequence[Row]] = partial(_extremes, sizes)
            if not self._allows(name, example if example is not None and number == 0 else pair, outputs):
                for same in sizes.values():
                    yield from self.batches(same, aspects, outputs)
                return
        if len(rows) > 1 and not (any(self._verdicts.values()) or self._allows(_ALIKE, lambda: rows[:2], outputs)):
            yield from ([row] for row in rows)
        elif rows:
            yield list(rows)

    def bears(self, aspect: str) -> bool:
        """Whether inputs that differ in an aspect may go together, as far as that is known."""
        return self._verdicts.get(aspect, True)

    def _allows(
        self,
        kind: str,
        pair: Callable[[], Sequence[Row]],
        outputs: Callable[[Sequence[Row]], Sequence[Steps]],
    ) -> bool:
        if kind not in self._verdicts:
            problem = self._problem(pair(), outputs)
            self._verdicts[kind] = problem is None
            if problem is not None:
                logger.warning("model '%s' does not run %s together: %s", self._name, kind, problem)
        return self._verdicts[kind]

    def _problem(self, pair: Sequence[Row], outputs: Callable[[Sequence[Row]], Sequence[Steps]]) -> str | None:
        """Returns what is wrong with a pair run together; None where nothing is."""
        try:
            together = outputs(pair)
            alone = [outputs([row])[0] for row in pair]
        except Exception as exc:
            # Whatever a library raises at a batch, the inputs can still go one by one.
            if isinstance(exc, PlatformError) or is_out_of_memory(exc):
                raise
            return f"{type(exc).__name__}: {exc}"
        gap = max(map(_gap, together, alone))
        return None if gap <= self._tolerance else f"the logits differ by {gap:.2g} of the largest"


def _extremes(sizes: Mapping[Any, Sequence[Row]]) -> Sequence[Row]:
    return sizes[min(sizes)][0], sizes[max(sizes)][0]


def _gap(together: Steps, alone: Steps) -> float:
    """Returns how far logits are apart, as a share of the largest, as long as they name the same tokens."""
    gap = 0.0
    for here, there in zip(together, alone, strict=False):
        if here.shape != there.shape:
            return float("inf")
        # Tokens that must not be are minus infinity in both.
        here, there = (logits.float().nan_to_num(neginf=0.0) for logits in (here, there))
        gap = max(gap, float((here - there).abs().max() / there.abs().max().clamp(min=1e-6)))
        if int(here.argmax()) != int(there.argmax()):
            break  # a draw: what follows goes on from another token
    return gap
