"""SqliteGuard: watches a registry file, so that nothing is read from, or written to, one that is not itself.

A missing file would be created empty by sqlite without a word, and an empty one believed. The guard
tells such a file from a sound one, and notices cheaply whether the file has changed.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

_LOOK_INTERVAL = 0.2
_CHANGE_COUNTER = 24  # offset in the header, 4 bytes big-endian: https://www.sqlite.org/fileformat.html
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

busy_seconds: ContextVar[float] = ContextVar("busy_seconds", default=5.0)
"""How long a connection to a registry file waits for a lock, in seconds."""

FileStamp = tuple[int, int, int]
"""A file's inode, size in bytes, and mtime in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes whenever sqlite commits to a file, or another file takes its place."""

    file: FileStamp
    change_counter: int
    wal: FileStamp | None = None

    @property
    def inode(self) -> int:
        """The file's inode."""
        return self.file[0]

    @classmethod
    def from_json(cls, values: list[Any] | None) -> "Fingerprint | None":
        """Returns the fingerprint that `to_json` wrote as a list."""
        if values is None:
            return None
        file, counter, wal = values
        return cls(_file_stamp(file), int(counter), _file_stamp(wal) if wal else None)

    def to_json(self) -> list[Any]:
        """Returns plain values that `from_json` takes."""
        return [self.file, self.change_counter, self.wal]


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Why a registry file cannot be used. A passing one (a lock) may be gone at the next try."""

    reason: str
    passing: bool = False


class SqliteGuard:
    """Watches one sqlite file. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._looked_at = 0.0
        self._seen: Fingerprint | None = None

    def look(self) -> Fingerprint | None:
        """Returns the fingerprint, at most 0.2 s old."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_INTERVAL:
            self._looked_at = now
            self._seen = self.fingerprint()
        return self._seen

    def fingerprint(self) -> Fingerprint | None:
        """Returns the fingerprint as it is now; None where there is no readable file."""
        try:
            stat = os.stat(self.path)
            counter = _change_counter(self.path, (stat.st_dev, stat.st_ino))
            found = Fingerprint((stat.st_ino, stat.st_size, stat.st_mtime_ns), counter, self._wal())
        except OSError:
            found = None
        self._seen = found
        return found

    def problem(self, *, known: bool, holds_models: bool, wait: float) -> FileProblem | None:
        """Returns what is wrong with the file, or None.

        `known`: it was a registry before; `holds_models`: and had models. A lock is waited for `wait` seconds.
        """
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return FileProblem("is missing") if known else None
        except OSError as exc:
            return FileProblem(f"cannot be read ({exc.strerror})")
        if size == 0:
            return FileProblem("is empty (0 bytes)") if known else None
        return self._content_problem(known, holds_models, wait)

    def is_absent(self) -> bool:
        """Whether there is no file, or one of 0 bytes."""
        try:
            return os.stat(self.path).st_size == 0
        except FileNotFoundError:
            return True

    def _content_problem(self, known: bool, holds_models: bool, wait: float) -> FileProblem | None:
        try:
            connection = sqlite3.connect(existing_file_uri(self.path), uri=True, timeout=wait)
            try:
                (has_table,) = connection.execute(
                    "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'registered_models'"
                ).fetchone()
                if not has_table:
                    return FileProblem("holds no registry (its tables are gone)") if known else None
                (has_models,) = connection.execute("SELECT EXISTS (SELECT 1 FROM registered_models)").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as exc:
            return _judged(exc)
        return FileProblem("holds no models, though it had some") if holds_models and not has_models else None

    def _wal(self) -> FileStamp | None:
        try:
            stat = os.stat(f"{self.path}-wal")
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def lock_patience(seconds: float) -> Iterator[None]:
    """Bounds how long this thread's connections wait for a locked file."""
    token = busy_seconds.set(seconds)
    try:
        yield
    finally:
        busy_seconds.reset(token)


def existing_file_uri(path: Path) -> str:
    """Returns the URI under which sqlite opens a file for reading and writing, but never creates it."""
    return f"file:{quote(str(path))}?mode=rw"


def _file_stamp(values: list[int]) -> FileStamp:
    inode, size, mtime_ns = values
    return inode, size, mtime_ns


def _judged(error: sqlite3.Error) -> FileProblem:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return FileProblem("is locked by another process", passing=True)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return FileProblem(f"is damaged ({error})")
    return FileProblem(f"cannot be opened ({error})")


_descriptors: dict[tuple[int, int], int] = {}
_descriptors_lock = threading.Lock()


def _change_counter(path: Path, file: tuple[int, int]) -> int:
    """Reads sqlite's change counter.

    The descriptor stays open while the file exists: closing any descriptor of a file drops every lock
    that this process holds on it, sqlite's included (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    descriptor = _descriptors.get(file)
    if descriptor is None:
        descriptor = _opened(path)
    return int.from_bytes(os.pread(descriptor, 4, _CHANGE_COUNTER), "big")


def _opened(path: Path) -> int:
    with _descriptors_lock:
        for key, descriptor in list(_descriptors.items()):
            if os.fstat(descriptor).st_nlink == 0:
                os.close(_descriptors.pop(key))
        stat = os.stat(path)
        if (stat.st_dev, stat.st_ino) in _descriptors:
            return _descriptors[stat.st_dev, stat.st_ino]
        descriptor = os.open(path, os.O_RDONLY)
        opened = os.fstat(descriptor)
        return _descriptors.setdefault((opened.st_dev, opened.st_ino), descriptor)
