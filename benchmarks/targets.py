"""What the service is to reach, and what it reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Units = Mapping[str, Mapping[str, Any]]
"""The measurements of one workload by server."""


@dataclass(frozen=True)
class Target:
    """One figure of a workload's: `value` finds it, `wanted` bounds it from below, or from above with `at_most`."""

    workload: str
    words: str
    value: Callable[[Units], float]
    wanted: float
    at_most: bool = False
    unit: str = ""

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value <= self.wanted if self.at_most else value >= self.wanted

    def bound(self) -> str:
        """Returns the bound in words."""
        return f"{'≤' if self.at_most else '≥'} {self.wanted:g}{self.unit}"


def _measure(name: str, figure: str, side: str = "", unit: str = "ours") -> Callable[[Units], float]:
    def find(units: Units) -> float:
        measure = units[unit]["measures"][name]
        return float((measure[side] if side else measure)[figure])

    return find


def _fact(figure: str) -> Callable[[Units], float]:
    return lambda units: float(units["ours"][figure])


def _gone(figure: str) -> Callable[[Units], float]:
    return lambda units: float(units["ours"]["abandoned"][figure])


def _first_token(units: Units) -> float:
    measures = units["ours"]["measures"]
    alone, together = (measures[f"first token c{count}"]["server"]["first_piece_p50_ms"] for count in (1, 8))
    return float(together / alone)


TARGETS = (
    Target("W1", "32 callers, to typed FastAPI", _measure("c32", "ratio"), 1.5),
    Target("W1", "99 of 100 answers, 32 callers", _measure("c32", "p99_ms", "server"), 10, True, " ms"),
    Target("W1", "one caller, to typed FastAPI", _measure("c1", "ratio"), 0.75),
    Target("W2", "16 callers, to the best direct batch", _measure("c16", "ratio"), 0.95),
    Target("W2", "one caller, to direct calls", _measure("c1", "ratio"), 0.93),
    Target("W3", "one caller, to `generate`", _measure("c1", "ratio"), 0.95),
    Target("W3", "eight callers, to `generate` in eights", _measure("c8", "ratio"), 0.95),
    Target("W3", "mixed load, to `generate` sorted in eights", _measure("mixed", "ratio"), 0.85),
    Target("W3", "first token, eight callers to one", _first_token, 2, True),
    Target(
        "W3",
        "50 clients gone: worker idle after",
        _gone("idle_after_seconds"),
        1,
        True,
        " s",
    ),
    Target("W3", "50 clients gone: speed to before", _gone("speed_after_to_before"), 0.95),
    Target("W4", "start to healthy", _fact("healthy_after_seconds"), 1.5, True, " s"),
    Target("W4", "gateway when healthy", _fact("gateway_mb"), 90, True, " MB"),
    Target("W4", "gateway, registry in use", _fact("gateway_mb_registry_in_use"), 320, True, " MB"),
    Target("W5", "64 tokens, eight callers, to direct", _measure("64 tokens", "ratio"), 0.97),
    Target("W5", "8 tokens, eight callers, to direct", _measure("8 tokens", "ratio"), 0.85),
    Target("W5", "first token, later than direct", _measure("first token", "difference"), 5, True, " ms"),
    Target("W6", "cold load, to a first `from_pretrained`", _fact("engine_load_to_from_pretrained"), 1.1, True),
    Target("W6", "cold request to first token", _fact("cold_request_to_first_token_seconds"), 0.5, True, " s"),
)
