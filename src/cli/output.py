"""Printing: tables and sentences for people, JSON for scripts. Answers go to stdout, everything else to stderr."""

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from src.core.sources.human import human_size

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 1000
"""Columns of a line that no terminal shows; rich would fold at 80."""
_KEPT = "\n\t"


def print_json(value: Any) -> None:
    """Prints a value as JSON to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_text(text: str, end: str = "\n") -> None:
    """Prints a text to stdout: byte for byte into a pipe, without control characters on a terminal."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    if not end:
        sys.stdout.flush()  # a piece, and the next one may take a while


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str = "none") -> None:
    """Prints a table to stdout, or the sentence `nothing` to stderr where there are no rows.

    With empty names for columns it has no header.
    """
    from rich.table import Table

    table = Table(box=None, show_header=any(columns), header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(printable(_cell(value)) for value in row))
    if table.row_count:
        console().print(table)
    else:
        say(nothing)


def say(text: str, *, style: str | None = None) -> None:
    """Prints a sentence to stderr."""
    console(stderr=True).print(printable(text), style=style, soft_wrap=True)


def console(*, stderr: bool = False) -> "Console":
    """Returns a console that prints what it is given and makes no markup of it."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _PIPE_WIDTH
    return made


def printable(text: str) -> str:
    """Returns a text without the control characters by which a stranger could drive a terminal."""
    return "".join(c if c in _KEPT or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in text)


def size_text(size: float | None) -> str:
    """Returns bytes as people read them: `1.0 GB`; "" for an unknown number."""
    return "" if size is None else human_size(int(size))


def commit_text(commit_id: str) -> str:
    """Returns the beginning of a commit id, which the service takes for the whole."""
    return commit_id[:12]


def time_text(seconds: float | None) -> str:
    """Returns seconds since 1970 as local time to the minute."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def duration_text(seconds: float | None) -> str:
    """Returns seconds as `m:ss` or `h:mm:ss`."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
