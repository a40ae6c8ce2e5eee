"""Spans: the likeliest run of words in a document, found from a model's marks for where answers start and end.

A page longer than the model's window is read in windows that overlap, and each token's marks are taken from the
window in which it stands less near the edge. Pages share one softmax, as in Clark and Gardner, "Simple and Effective
Multi-Paragraph Reading Comprehension" (2018): a page of three words does not win because it has few.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class Marks:
    """What a model marked on one page: for each token of its words the word's place, and two logits."""

    words: list[int] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, offset: int, skip: int, words: Sequence[int], starts: Sequence[float], ends: Sequence[float]) -> None:
        """Adds a window that begins at the page's token `offset`, without its first `skip` tokens."""
        self.words[offset + skip :] = words[skip:]
        self.starts[offset + skip :] = starts[skip:]
        self.ends[offset + skip :] = ends[skip:]


@dataclass(frozen=True, slots=True)
class Span:
    """Words `first` to `last` of a page; `score`: the probability of its first token times that of its last one."""

    first: int
    last: int
    score: float


def best_spans(pages: Sequence[Marks], longest: int) -> list[Span | None]:
    """Returns the likeliest span of at most `longest` tokens on each page; None for a page without tokens."""
    starts = _log_probabilities([logit for page in pages for logit in page.starts])
    ends = _log_probabilities([logit for page in pages for logit in page.ends])
    spans: list[Span | None] = []
    begin = 0
    for page in pages:
        stop = begin + len(page.words)
        spans.append(_best(page.words, starts[begin:stop], ends[begin:stop], longest) if page.words else None)
        begin = stop
    return spans


def _log_probabilities(logits: Sequence[float]) -> torch.Tensor:
    return torch.tensor(logits, dtype=torch.float64).log_softmax(0)


def _best(words: Sequence[int], starts: torch.Tensor, ends: torch.Tensor, longest: int) -> Span:
    length = len(words)
    best, first, last = -math.inf, 0, 0
    for more in range(min(longest, length)):
        value, place = (starts[: length - more] + ends[more:]).max(0)
        if float(value) > best:
            best, first, last = float(value), int(place), int(place) + more
    return Span(words[first], words[last], math.exp(best))
