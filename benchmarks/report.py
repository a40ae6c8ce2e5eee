"""What a run leaves for readers: the figures of docs/benchmarks.md, between its marks, and the chart."""

from collections.abc import Iterator
from typing import Any

from benchmarks import chart, results
from benchmarks.serving import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
CHART = results.FOLDER / "chart.svg"
BEGIN, END = "<!-- figures of the last run: begin -->", "<!-- figures of the last run: end -->"
_DRAWN = (
    ("W1", "c32", "W1 · no-op, 32 callers"),
    ("W2", "c16", "W2 · image classifier, 16 callers"),
    ("W3", "c8", "W3 · text generation, 8 callers"),
    ("W3", "mixed", "W3 · text generation, mixed load"),
    ("W5", "64 tokens", "W5 · Ollama passed through, 64 tokens"),
)
Results = dict[str, dict[str, Any]]


def write(found: Results) -> None:
    """Draws the chart and writes the figures into the page."""
    CHART.write_text(drawn(found))
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{figures(found)}\n{END}{rest.split(END)[1]}")


def drawn(found: Results) -> str:
    """Returns the chart."""
    groups = []
    for workload, measure, title in _DRAWN:
        units = found.get(workload, {}).get("units", {})
        bars = [(server, ratios[measure]) for server, ratios in results.ratios(units) if measure in ratios]
        if bars:
            groups.append(chart.Group(title, bars))
    return chart.draw("Throughput, to the limit of each workload", groups)


def figures(found: Results) -> str:
    """Returns machine, targets and tables in Markdown."""
    parts = ["\n".join(_machines(found)), "\n".join(_targets(found))]
    parts += ["\n".join(_workload(name, result)) for name, result in found.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machines(found: Results) -> Iterator[str]:
    """Names each machine and day once, with the workloads that were measured there and then."""
    places: dict[str, list[str]] = {}
    for name, result in found.items():
        machine = result["machine"]
        packages = ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
        place = (
            f"{result['at'][:10]}: {machine['cpu']}, {machine['cores']} cores"
            f"{' with AMX' if machine['amx'] else ''}, {machine['memory_bytes'] / 2**30:.0f} GiB, "
            f"Python {machine['python']}, {packages}; "
            f"{result['seconds']:g} s for a measurement"
        )
        places.setdefault(place, []).append(name)
    for place, names in places.items():
        yield f"{', '.join(names)} on {place}." if len(places) > 1 else f"Measured on {place}."


def _targets(found: Results) -> Iterator[str]:
    rows = list(results.reached(found))
    if rows:
        yield "| | | wanted | measured | |"
        yield "|---|---|---|---|---|"
    for target, value in rows:
        mark = "reached" if target.reached(value) else "**missed**"
        yield f"| {target.workload} | {target.words} | {target.bound()} | {value:.3g}{target.unit} | {mark} |"


def _workload(name: str, result: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}: {results.TITLES[name]}"
    yield ""
    units = result["units"]
    measured = {server: unit for server, unit in units.items() if "measures" in unit}
    yield from _measures(measured) if measured else _facts(units)
    for server, unit in units.items():
        if "unavailable" in unit:
            yield ""
            yield f"{server} could not be measured here: {_one_line(unit['unavailable'])}"


def _measures(units: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields a table: of each measure the server's figure, its limit's beside it, and the ratio."""
    names = list(dict.fromkeys(name for unit in units.values() for name in unit["measures"]))
    yield "| server | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    for server, unit in units.items():
        title = f"{server} {unit['version']}" if "version" in unit else server
        yield f"| {title} | " + " | ".join(_cell(unit["measures"].get(name)) for name in names) + " |"
    yield ""
    yield "Server / its limit in the same minutes = ratio; p99 in milliseconds."


def _cell(measure: dict[str, Any] | None) -> str:
    if measure is None:
        return ""
    server = measure["server"]
    limit = measure.get("limit", {})
    if "difference" in measure:
        return f"{server['first_piece_p50_ms']:.1f} / {limit['first_piece_p50_ms']:.1f} ms"
    rate = "tokens_per_second" if "tokens_per_second" in limit else "requests_per_second"
    p99 = f"; p99 {server['p99_ms']:.1f}" if rate == "requests_per_second" else ""
    return f"{server[rate]:,.4g} / {limit[rate]:,.4g} = **{measure['ratio']:.2f}**{p99}"


def _facts(units: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields a table of single figures, a row for each server."""
    rows = {server: _flat(unit) for server, unit in units.items() if "unavailable" not in unit}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(rows) > 2:
        yield "| | " + " | ".join(name.replace("_", " ") for name in names) + " |"
        yield "|---|" + "---|" * len(names)
        for server, row in rows.items():
            title = f"{server} {units[server]['version']}" if "version" in units[server] else server
            yield f"| {title} | " + " | ".join(_number(row.get(name)) for name in names) + " |"
        return
    yield "| | " + " | ".join(rows) + " |"
    yield "|---|" + "---|" * len(rows)
    for name in names:
        yield f"| {name.replace('_', ' ')} | " + " | ".join(_number(row.get(name)) for row in rows.values()) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _flat(unit: dict[str, Any]) -> dict[str, float]:
    numbers = {**unit, **unit.get("ratios", {})}
    return {name: value for name, value in numbers.items() if isinstance(value, int | float)}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
