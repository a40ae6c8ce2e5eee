"""How long to go on with a hub that fails, and how to stop at once when nobody waits any more."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from src.core.errors import SourceUnavailableError

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST = 120.0  # seconds; whatever a server asks for

T = TypeVar("T")


class PassingError(Exception):
    """A failure that may pass. `wait` is how many seconds the hub wants to be left alone, where it said so."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class StoppedError(Exception):
    """The work is broken off; nobody gets to see this."""


class Patience:
    """Tries again, `pauses` seconds after each failure in a row; what sets `stop` ends pauses and work."""

    def __init__(self, pauses: Sequence[float] = PAUSES) -> None:
        self.stop = threading.Event()
        self._pauses = pauses

    def check(self) -> None:
        """Raises `StoppedError` once the work is to stop."""
        if self.stop.is_set():
            raise StoppedError

    def persist(self, work: Callable[[], T], gain: Callable[[], int] = lambda: 0) -> T:
        """Returns what `work` does once it succeeds; `SourceUnavailableError` when it went on failing.

        `gain` is a count that grows while something comes of the tries; then the pauses begin anew.
        """
        failures, gained = 0, gain()
        while True:
            self.check()
            try:
                return work()
            except PassingError as exc:
                if gain() > gained:
                    failures, gained = 0, gain()
                if failures >= len(self._pauses):
                    raise SourceUnavailableError(str(exc)) from exc
                self._pause(min(max(self._pauses[failures], exc.wait), _LONGEST))
                failures += 1

    def _pause(self, seconds: float) -> None:
        self.stop.wait(seconds)
        self.check()
