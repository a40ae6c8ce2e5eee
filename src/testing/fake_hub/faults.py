"""What goes wrong on demand: cut connections, refusals, flipped bytes, slowness."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar


@dataclass(slots=True)
class Cut:
    """Ends the connection once `after` bytes of a body have gone out."""

    after: int
    times: int
    file: str | None


@dataclass(slots=True)
class Refusal:
    """Answers `status` in place of what was asked for; `retry_after` in seconds."""

    status: int
    times: int
    path: str
    retry_after: int | None


@dataclass(slots=True)
class Flip:
    """Sends one byte of a file changed; `times` None: always."""

    file: str
    times: int | None


F = TypeVar("F", Cut, Refusal, Flip)


class Faults:
    """The faults that wait for their request; each is used up as often as it was asked for.

    `ranges` False makes every answer begin at a file's first byte, as some networks do.
    """

    def __init__(self) -> None:
        self.ranges = True
        self.bytes_per_second: float | None = None
        self._lock = threading.Lock()
        self._cuts: list[Cut] = []
        self._refusals: list[Refusal] = []
        self._flips: list[Flip] = []

    def cut(self, after: int, *, times: int = 1, file: str | None = None) -> None:
        """Cuts the next answers that are to send more than `after` bytes of a file (of any, where none is named)."""
        self._add(self._cuts, Cut(after, times, file))

    def unavailable(self, *, times: int = 1, status: int = 503, path: str = "", retry_after: int | None = None) -> None:
        """Refuses the next requests whose URL path contains `path`."""
        self._add(self._refusals, Refusal(status, times, path, retry_after))

    def flip(self, file: str, *, times: int | None = 1) -> None:
        """Changes one byte in the next answers with a file's content; in all of them with `times=None`."""
        self._add(self._flips, Flip(file, times))

    def slow(self, bytes_per_second: float | None) -> None:
        """Sends bodies of files at this pace from now on, each; None: as fast as it goes."""
        self.bytes_per_second = bytes_per_second

    def clear(self) -> None:
        """Forgets every fault."""
        with self._lock:
            self._cuts, self._refusals, self._flips = [], [], []
            self.bytes_per_second, self.ranges = None, True

    def take_cut(self, file: str, count: int) -> int | None:
        """Returns after how many of `count` bytes to cut an answer, if it is to be cut."""
        fits: Callable[[Cut], bool] = lambda cut: cut.file in (None, file) and cut.after < count  # noqa: E731
        found = self._take(self._cuts, fits)
        return found.after if found else None

    def take_refusal(self, path: str) -> Refusal | None:
        """Returns how to refuse a request, if it is to be refused."""
        return self._take(self._refusals, lambda refusal: refusal.path in path)

    def take_flip(self, file: str) -> bool:
        """Whether to change a byte in this answer."""
        return self._take(self._flips, lambda flip: flip.file == file) is not None

    def _add(self, faults: list[F], fault: F) -> None:
        with self._lock:
            faults.append(fault)

    def _take(self, faults: list[F], fits: Callable[[F], bool]) -> F | None:
        with self._lock:
            found = next((fault for fault in faults if fits(fault)), None)
            if found and found.times is not None:
                found.times -= 1
                if found.times <= 0:
                    faults.remove(found)
            return found
