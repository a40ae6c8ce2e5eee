"""Counts and latencies of inferences, in all and per model."""

import math
import time
from collections import deque
from dataclasses import dataclass, field

from src.inference.types import JsonObject

_KEPT = 1024
_MODELS = 1000


@dataclass(slots=True)
class Counter:
    """Successes, failures and the last latencies (seconds) of one model."""

    succeeded: int = 0
    failed: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def percentiles(self) -> JsonObject:
        """Returns p50, p90 and p99 of the last successful requests, in seconds; None before the first."""
        ordered = sorted(self.latencies)
        if not ordered:
            return {"p50": None, "p90": None, "p99": None}
        # nearest rank
        return {f"p{share}": ordered[math.ceil(len(ordered) * share / 100) - 1] for share in (50, 90, 99)}


class InferenceStats:
    """What `/inference/stats` counts."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._all = Counter()
        self._models: dict[str, Counter] = {}

    def succeeded(self, model: str, seconds: float) -> None:
        """Counts an answer that took `seconds`."""
        self._all.succeeded += 1
        counter = self._model(model)
        counter.succeeded += 1
        counter.latencies.append(seconds)

    def failed(self, model: str | None) -> None:
        """Counts a failure; `model` is None where the request named none that exists."""
        self._all.failed += 1
        if model is not None:
            self._model(model).failed += 1

    def totals(self) -> JsonObject:
        """Returns the documented totals; `uptime` in seconds."""
        total = self._all.succeeded + self._all.failed
        return {
            "total_inferences": total,
            "successful_inferences": self._all.succeeded,
            "failed_inferences": self._all.failed,
            "success_rate": self._all.succeeded / total if total else 0.0,
            "uptime": time.monotonic() - self._started,
        }

    def models(self) -> dict[str, JsonObject]:
        """Returns counts and latencies per model."""
        return {
            name: {
                "inferences": counter.succeeded + counter.failed,
                "successful": counter.succeeded,
                "failed": counter.failed,
                "latency_seconds": counter.percentiles(),
            }
            for name, counter in self._models.items()
        }

    def _model(self, name: str) -> Counter:
        counter = self._models.get(name)
        if counter is None:
            if len(self._models) >= _MODELS:
                self._models.pop(next(iter(self._models)))
            counter = self._models[name] = Counter()
        return counter
