"""From answers to figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.generator.answers import Said

_MANY_ROUNDS = 50
"""Of all callers in a window: a burst more or less is two parts in a hundred of it."""


@dataclass(slots=True)
class Finished:
    """One answer: when its request left, its first piece came and it was whole; `said` only where it was read."""

    request: int
    sent: float
    first: float | None
    end: float
    is_good: bool
    said: Said | None = None


def closed_figures(answers: Sequence[Finished], start: float, end: float, callers: int) -> dict[str, Any]:
    """Returns rates and latencies of a closed loop of so many callers between two moments.

    Servers that batch answer in bursts, and a window that begins or ends anywhere counts a burst more or less. So
    where bursts would show, the rate is what the time that answers took says of callers that ask again at once
    (Little's law): callers divided by the mean latency.
    """
    within = [answer for answer in answers if start < answer.end <= end]
    if len(within) < callers:
        # Requests take longer than that: everything counts, from the first request on.
        return open_figures(answers, min(answer.sent for answer in answers))
    seconds = end - start
    if len(within) < _MANY_ROUNDS * callers:
        seconds = len(within) * mean(answer.end - answer.sent for answer in within) / callers
    return {**_rates(within, seconds), **_latencies(within)}


def open_figures(answers: Sequence[Finished], start: float) -> dict[str, Any]:
    """Returns rates and latencies of requests that arrived by themselves, the first one at `start`."""
    return {**_rates(answers, max(answer.end for answer in answers) - start), **_latencies(answers)}


def _rates(answers: Sequence[Finished], seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "requests": len(answers),
        "errors": sum(not answer.is_good for answer in answers),
        "requests_per_second": len(answers) / seconds,
    }
    said = [answer.said for answer in answers if answer.said is not None]
    if said and any(one.tokens for one in said):
        tokens = sum(one.tokens for one in said)
        figures |= {"tokens": tokens, "tokens_per_second": tokens / seconds}
    return figures


def _latencies(answers: Sequence[Finished]) -> dict[str, float]:
    figures = _percentiles(answers, "", lambda answer: answer.end - answer.sent)
    first = [answer for answer in answers if answer.first is not None]
    if first:
        figures |= _percentiles(first, "first_piece_", lambda answer: (answer.first or 0.0) - answer.sent)
    return figures


def _percentiles(answers: Sequence[Finished], prefix: str, seconds: Callable[[Finished], float]) -> dict[str, float]:
    ordered = sorted(seconds(answer) for answer in answers)
    return {f"{prefix}p{part}_ms": ordered[len(ordered) * part // 100] * 1000 for part in (50, 99)}
