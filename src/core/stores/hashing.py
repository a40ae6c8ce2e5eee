"""Bytes through sha256, in large chunks, several files at once, with progress."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar

from src.core.stores.base import FileEntry, Progress
from src.core.stores.disk import read_ahead, start_writeback

CHUNK = 2 * 1024 * 1024
WRITEBACK = 16 * 1024 * 1024

T = TypeVar("T")
R = TypeVar("R")


class Meter:
    """Counts bytes from several threads into one progress callback, one call at a time.

    Once the callback, or the work in one thread, has raised, whoever counts next in any thread gets the
    same exception: that is how all of them stop within one chunk.
    """

    def __init__(self, total: int, progress: Progress | None = None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._reason: BaseException | None = None
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts bytes that are done; never past the total, should a file have grown meanwhile."""
        with self._lock:
            self.check()
            self._done = min(self._done + count, self._total)
            if self._progress:
                try:
                    self._progress(self._done, self._total)
                except BaseException as exc:
                    self.stop(exc)
                    raise

    def stop(self, reason: BaseException) -> None:
        """Makes `add` and `check` raise from now on; the first reason stays."""
        self._reason = self._reason or reason

    def check(self) -> None:
        """Raises what stopped the work, if anything did."""
        if self._reason:
            raise self._reason


def in_parallel(work: Callable[[T], R], items: Iterable[T], meter: Meter | None = None) -> list[R]:
    """Does `work` for each item in a few threads (hashing leaves the GIL); the first error ends it.

    Items not yet begun are left out then; those in work end when they next count into `meter`, if given.
    """
    ended = meter or Meter(0)

    def one(item: T) -> R:
        ended.check()
        try:
            return work(item)
        except BaseException as exc:
            ended.stop(exc)
            raise

    with ThreadPoolExecutor(_threads()) as pool:
        try:
            return list(pool.map(one, items))
        except BaseException as exc:  # an interrupt from the keyboard, too, which came to this thread
            ended.stop(exc)
            raise


def _threads() -> int:
    """Returns how many cores may be kept busy: one is left to the service, which has requests to answer meanwhile."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores - 1))


def sha256_of(source: FileIO, expected: int, meter: Meter, copy_to: BinaryIO | None = None) -> tuple[str, int]:
    """Reads a file; returns the digest (hex) and count of exactly the bytes that were read, and copied.

    Gives up past the expected size: whoever reads a file that keeps growing would never end.
    """
    read_ahead(source.fileno())
    digest = hashlib.sha256()
    size = sent = 0
    view = memoryview(bytearray(CHUNK))
    while size <= expected and (count := source.readinto(view)):
        digest.update(view[:count])
        size += count
        if copy_to:
            copy_to.write(view[:count])
            if size - sent >= WRITEBACK:
                start_writeback(copy_to.fileno(), sent, size - sent)
                sent = size
        meter.add(count)
    return digest.hexdigest(), size


def differing(files: Iterable[tuple[FileEntry, Path]], meter: Meter) -> list[FileEntry]:
    """Returns the entries whose file, at the path given with each, is missing or has other bytes."""

    def check(item: tuple[FileEntry, Path]) -> FileEntry | None:
        entry, path = item
        try:
            with FileIO(path) as file:
                return None if sha256_of(file, entry.size, meter)[0] == entry.sha256 else entry
        except FileNotFoundError:
            return entry

    return [entry for entry in in_parallel(check, files, meter) if entry]
