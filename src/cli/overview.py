"""The lifecycle's figures and its neighbours' health, printed for people."""

from collections.abc import Iterator
from typing import Any

from src.cli.output import print_table, size_text

JsonObject = dict[str, Any]


def print_stats(stats: JsonObject) -> None:
    """Prints `GET /models/stats`."""
    print_table(("", ""), _flat("", stats))


def print_health(health: JsonObject) -> None:
    """Prints `GET /models/health`."""
    rows = [
        (name, _reached(entry), entry.get("latency_ms"), entry.get("error"))
        for name, entry in health.items()
        if isinstance(entry, dict)
    ]
    print_table(("Server", "Answers", "ms", "Error"), [*rows, ("all", health["status"], None, None)])


def _flat(above: str, values: JsonObject) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            yield from _flat(f"{path} / ", value)
        elif value is not None:
            is_size = "bytes" in path and isinstance(value, int | float)
            yield path.replace("_", " "), size_text(value) if is_size else str(value)


def _reached(entry: JsonObject) -> str:
    if entry.get("reachable"):
        return "yes"
    return "no" if entry.get("configured") else "no (not configured)"
