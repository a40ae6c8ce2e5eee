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

CHUNK = 2 * 1024 * 1024

T = TypeVar("T")
R = TypeVar("R")


class Meter:
    """Counts bytes from several threads into one progress callback, one call at a time."""

    def __init__(self, total: int, progress: Progress | None = None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts bytes that are done; never past the total, should a file have grown meanwhile."""
        with self._lock:
            self._done = min(self._done + count, self._total)
            if self._progress:
                self._progress(self._done, self._total)


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Does `work` for each item in a few threads (hashing leaves the GIL); the first error ends it."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def sha256_of(source: FileIO, expected: int, meter: Meter, copy_to: BinaryIO | None = None) -> tuple[str, int]:
    """Reads a file; returns the digest (hex) and count of exactly the bytes that were read, and copied.

    Gives up past the expected size: whoever reads a file that keeps growing would never end.
    """
    digest = hashlib.sha256()
    size = 0
    view = memoryview(bytearray(CHUNK))
    while size <= expected and (count := source.readinto(view)):
        digest.update(view[:count])
        if copy_to:
            copy_to.write(view[:count])
        size += count
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

    return [entry for entry in in_parallel(check, files) if entry]
