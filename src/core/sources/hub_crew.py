"""A few threads that work off a list while their caller watches."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from src.core.sources.hub_patience import StoppedError

TICK = 0.2
"""Seconds between two looks of the caller."""

T = TypeVar("T")


def together(
    work: Callable[[T], object], items: Iterable[T], *, threads: int, stop: threading.Event, tick: Callable[[], None]
) -> None:
    """Does `work` for each item in a few threads; `tick` is called in this thread a few times a second.

    The first error ends it, as does what `tick` raises: `stop` is set, on which the work has to end soon,
    and the error comes out when all threads have.
    """
    queue = _Shared(items)

    def member() -> None:
        for item in queue:
            if stop.is_set():
                return
            work(item)

    with ThreadPoolExecutor(threads, thread_name_prefix="aiml-hub") as pool:
        _watch([pool.submit(member) for _ in range(threads)], stop, tick)


def aside(work: Callable[[], T], *, stop: threading.Event, tick: Callable[[], None]) -> T:
    """Returns what `work` does in a thread of its own; `tick` is called in this one a few times a second.

    What `tick` raises comes out at once: the work, which holds nothing, ends by itself.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="aiml-hub")
    future = pool.submit(work)
    try:
        _watch([future], stop, tick)
        return future.result()
    finally:
        pool.shutdown(wait=False)


def _watch(futures: list["Future[T]"], stop: threading.Event, tick: Callable[[], None]) -> None:
    try:
        pending = set(futures)
        while pending and not stop.is_set():
            tick()
            done, pending = wait(pending, TICK, FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                break
    except BaseException:
        stop.set()
        raise
    if pending:
        stop.set()
        wait(pending)
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error


class _Shared(Iterator[T]):
    """An iterator that several threads may ask."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)
