"""`python -m tests.architectures`: runs the rows and, when it ran all, writes docs/architectures.md.

Ends with 1 where a row fails that passed in the page before.
"""

import argparse
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.architectures.case import CHANGED, TOLERANCE, Case
from tests.architectures.judging import Row, judged
from tests.architectures.rows import cases, not_tried
from tests.architectures.serving import serving
from tests.architectures.table import markdown, passed_before
from tests.service import ROOT

PAGE = ROOT / "docs" / "architectures.md"
# A service keeps every commit it was given: a fresh one now and then bounds the disk that a run takes.
_ROWS_PER_SERVICE = 60


def main() -> int:
    """Runs what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument("--task", help="rows of this task alone; the page stays as it is")
    parser.add_argument("--only", help="architectures whose name holds this; the page stays as it is")
    parser.add_argument("--quick", action="store_true", help="the rows of every `make test`; the page stays as it is")
    chosen = parser.parse_args()
    _quiet()
    # As Ctrl+C does, so that the service ends with its rows.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    wanted = cases(chosen.task, chosen.only, quick=chosen.quick)
    if not wanted:
        parser.error("no row is called so")
    rows = sorted(run(wanted), key=lambda row: (row.task, row.architecture))
    before = passed_before(PAGE)
    if not (chosen.task or chosen.only or chosen.quick):
        PAGE.write_text(markdown(rows, not_tried(), TOLERANCE, CHANGED), encoding="utf-8")
    return _summed_up(rows, before)


def run(wanted: Sequence[Case]) -> list[Row]:
    """Runs rows, some at a time on one service, with a bar on the terminal."""
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, TimeRemainingColumn(), disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("", total=len(wanted))
        for start in range(0, len(wanted), _ROWS_PER_SERVICE):
            with tempfile.TemporaryDirectory(prefix="architectures-") as folder, serving(Path(folder)) as service:
                for case in wanted[start : start + _ROWS_PER_SERVICE]:
                    progress.update(bar, description=case.name)
                    row = judged(case, service)
                    rows.append(row)
                    progress.advance(bar)
                    if not row.passes:
                        progress.console.print(f"{case.name}: {row.problem}", markup=False, highlight=False)
    return rows


def _quiet() -> None:
    """Has the libraries keep to themselves what they say about random models."""
    from transformers.utils import logging

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")


def _summed_up(rows: Sequence[Row], before: set[tuple[str, str]]) -> int:
    lost = [row for row in rows if not row.passes and (row.task, row.architecture) in before]
    for row in lost:
        print(f"passed before and fails now: {row.task}: {row.architecture}: {row.problem}")
    print(f"{sum(row.passes for row in rows)} of {len(rows)} rows pass")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
