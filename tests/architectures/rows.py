"""All rows there are, and the architectures that ought to have one."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from src.inference.engines.transformers import families
from tests.architectures.case import Case

NO_ROW = "it has no row"


def cases(task: str | None = None, only: str | None = None, *, quick: bool = False) -> list[Case]:
    """Returns the rows of a task, of architectures whose name holds `only`, or the quick ones."""
    found = [case for module in _modules() for case in module.CASES]
    return [
        case
        for case in found
        if task in (None, case.task) and (only or "").lower() in case.architecture.lower() and (case.quick or not quick)
    ]


def not_tried() -> dict[tuple[str, str], str]:
    """Returns (task, architecture) → why it has no row, for all that the library maps to a task of ours."""
    reasons = {key: reason for module in _modules() for key, reason in module.NOT_TRIED.items()}
    tried = {(case.task, case.architecture) for case in cases()}
    mapped = json.loads(Path(families.__file__).with_name("families.json").read_text(encoding="utf-8"))
    expected = {
        (task, architecture)
        for task, runners in families.RUNNERS.items()
        for architecture, kinds in mapped.items()
        if runners.keys() & kinds
    }
    return {key: reasons.get(key, NO_ROW) for key in sorted(expected - tried)}


def _modules() -> Iterator[ModuleType]:
    for path in sorted(Path(__file__).parent.glob("rows_*.py")):
        yield importlib.import_module(f"{__package__}.{path.stem}")
