"""Attempts: calls whose failure is a value, for inputs that share a batch and not their fate."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from src.core.errors import CancelledError

Given = TypeVar("Given")
Found = TypeVar("Found")


def attempted(work: Callable[..., Found], *arguments: Any) -> Found | Exception:
    """Returns what a call returns, or the exception that it raises; one that says that nobody waits goes on its way."""
    try:
        return work(*arguments)
    except CancelledError:
        raise
    except Exception as exc:
        # One input's failure is its own: the others of its batch go on.
        return exc


def together(
    given: Sequence[Given | Exception], work: Callable[[list[Given]], Sequence[Found | Exception]]
) -> list[Found | Exception]:
    """Returns what one call makes of all that are no exceptions, and those in their places."""
    found = iter(work([each for each in given if not isinstance(each, Exception)]))
    return [each if isinstance(each, Exception) else next(found) for each in given]
