"""Several waits on the network at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from src.core.stores.hashing import Meter

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """A number of threads, started anew for each piece of work: between two of them nothing stays behind."""

    def __init__(self, count: int) -> None:
        self._count = count

    def each(self, work: Callable[[T], R], items: Iterable[T], meter: Meter | None = None) -> list[R]:
        """Does `work` for each item; the first error ends it, for those at work when they next count into `meter`."""
        ended = meter or Meter(0)

        def one(item: T) -> R:
            ended.check()
            try:
                return work(item)
            except BaseException as exc:
                ended.stop(exc)
                raise

        with ThreadPoolExecutor(self._count, thread_name_prefix="lakefs") as pool:
            try:
                return list(pool.map(one, items))
            except BaseException as exc:  # an interrupt from the keyboard, too, which came to this thread
                ended.stop(exc)
                raise
