"""The table in the documentation: written from rows, and read again to see what passed before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.architectures.judging import Row

_INTRODUCTION = """\
# Architectures

Written by `make coverage-matrix`; do not edit. Each row is a tiny model with random weights, made from its
architecture's own config with its own processor or tokenizer classes. It is committed to the version store, registered
and asked over HTTP, and a direct call to the library, which shares no code with the service, is asked the same.

A row passes when both give the same text or labels and log-probabilities (scores where nothing is generated) within
{tolerance:g}, and when each change of its input (another image, sound, frame, page or prompt) moves those
numbers by at least {changed:g} in both. What a random model proves is that the service runs an architecture
as the library does; it says nothing about quality.
"""


def markdown(rows: Sequence[Row], not_tried: Mapping[tuple[str, str], str], tolerance: float, changed: float) -> str:
    """Returns the page: counts, what passes, what fails and why, what was not tried and why."""
    passing = [row for row in rows if row.passes]
    failing = [row for row in rows if not row.passes]
    parts = [_INTRODUCTION.format(tolerance=tolerance, changed=changed), _counts(rows, not_tried), "## Passing\n"]
    parts.append(
        _table(
            ("Architecture", "Task", "Equal", "Sensitive to", "transformers"),
            [(row.architecture, row.task, "yes", ", ".join(row.sensitive), row.library) for row in passing],
        )
    )
    if failing:
        lines = [
            (row.architecture, row.task, _yes(row.equal), ", ".join(row.sensitive), row.problem) for row in failing
        ]
        parts += ["## Failing\n", _table(("Architecture", "Task", "Equal", "Sensitive to", "Problem"), lines)]
    if not_tried:
        parts += ["## Not tried\n", _table(("Task", "Reason", "Architectures"), _grouped(not_tried))]
    return "\n".join(parts)


def passed_before(page: Path) -> set[tuple[str, str]]:
    """Returns (task, architecture) of the rows that pass in a page; none where there is no page."""
    if not page.is_file():
        return set()
    section = page.read_text(encoding="utf-8").partition("## Passing\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ") for line in section.splitlines()[3:] if line.startswith("| ")]
    return {(line[1], line[0].removeprefix("| ").strip("`")) for line in cells}


def _counts(rows: Sequence[Row], not_tried: Mapping[tuple[str, str], str]) -> str:
    tried, passed = Counter(row.task for row in rows), Counter(row.task for row in rows if row.passes)
    missing = Counter(task for task, _ in not_tried)
    tasks = sorted({*tried, *missing})
    lines = [(task, str(passed[task]), str(tried[task] - passed[task]), str(missing[task])) for task in tasks]
    lines.append(("all", str(passed.total()), str(tried.total() - passed.total()), str(missing.total())))
    return _table(("Task", "Pass", "Fail", "Not tried"), lines)


def _grouped(not_tried: Mapping[tuple[str, str], str]) -> list[tuple[str, str, str]]:
    groups = dict[tuple[str, str], list[str]]()
    for (task, architecture), reason in sorted(not_tried.items()):
        groups.setdefault((task, reason), []).append(architecture)
    return [(task, reason, ", ".join(names)) for (task, reason), names in sorted(groups.items())]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    plain = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *plain]) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
