"""A server beside its limit: the same measure of both in turn, several times, and what comes out in the middle."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Run = Callable[[], dict[str, Any]]

_SLOW = 25.0
"""Seconds of one run above which it is not repeated: what is that far behind needs no median."""


@dataclass(frozen=True)
class Pair:
    """One measure: how to run it on the server, which figure counts, and how to run it on the limit.

    With a limit there is a ratio of the figure, server to limit. For times (`is_time`) the difference is kept too.
    """

    server: Run
    figure: str
    limit: Run | None = None
    is_time: bool = False


def interleaved(pairs: Mapping[str, Pair], rounds: int) -> dict[str, Any]:
    """Runs server, limit, server, limit … for each measure, so that the machine's drift hits both.

    Returns `rounds` (every raw run) and `measures` (the medians of each measure's figures, its median ratio and
    difference: of the ratios and differences within a round, not of medians).
    """
    raw: list[dict[str, Any]] = []
    slow: set[str] = set()
    for _ in range(rounds):
        turn: dict[str, Any] = {}
        for name, pair in pairs.items():
            if name not in slow:
                started = time.perf_counter()
                turn[name] = _once(pair)
                if time.perf_counter() - started > _SLOW:
                    slow.add(name)
        raw.append(turn)
    return {"rounds": raw, "measures": {name: _middle([turn[name] for turn in raw if name in turn]) for name in pairs}}


def _once(pair: Pair) -> dict[str, Any]:
    server = pair.server()
    if pair.limit is None:
        return {"server": server}
    limit = pair.limit()
    ours, theirs = server[pair.figure], limit[pair.figure]
    compared = {"ratio": ours / theirs, **({"difference": ours - theirs} if pair.is_time else {})}
    return {"server": server, "limit": limit, **compared}


def _middle(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"runs": len(turns), **medians(turns)}
    for side in ("server", "limit"):
        if side in turns[0]:
            found[side] = medians([turn[side] for turn in turns])
    return found


def medians(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the median of every figure that all rows have."""
    return {
        name: median(row[name] for row in rows)
        for name, value in rows[0].items()
        if isinstance(value, int | float) and all(name in row for row in rows)
    }
