"""A folder on its way to lakeFS: what is in it, and its bytes as they leave."""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.core.errors import ConflictError
from src.core.stores.base import FileEntry, Progress, content_digest
from src.core.stores.hashing import CHUNK, Meter, in_parallel, sha256_of
from src.core.stores.source_tree import SourceFile, scan
from src.core.stores.stat_cache import FileStamp, StatCache


@dataclass(frozen=True)
class Folder:
    """The files of a folder, by path, and their entries, sorted."""

    sources: dict[str, SourceFile]
    entries: tuple[FileEntry, ...]

    @classmethod
    def read(cls, path: Path, cache: Path, progress: Progress | None) -> "Folder":
        """Hashes the files below `path`, those whose digest the stat cache below `cache` does not know.

        `progress` is told that nothing is done yet, so that it can break the reading off.
        Raises `ConflictError` where a file is written to meanwhile.
        """
        files = scan(path)
        known = StatCache(cache)
        meter = _Reading(sum(file.size for file in files), progress)
        entries = in_parallel(lambda file: _entry(file, known, meter), files, meter)
        known.save()
        return cls({file.path: file for file in files}, tuple(sorted(entries)))

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(entry.size for entry in self.entries)

    @property
    def digest(self) -> str:
        """The content digest of the tree."""
        return content_digest(self.entries)


class Outgoing:
    """One file's bytes as they are sent, hashed once more on the way; iterating begins anew.

    `md5` is there after the last byte. Raises `ConflictError` where the bytes are not those of the entry.
    """

    def __init__(self, source: SourceFile, entry: FileEntry, meter: Meter) -> None:
        self.size = entry.size
        self.failure: Exception | None = None
        self.md5 = ""
        self._source = source
        self._entry = entry
        self._meter = meter
        self._counted = 0

    def __iter__(self) -> Iterator[memoryview]:
        try:
            yield from self._chunks()
        except Exception as exc:
            self.failure = exc
            raise

    def _chunks(self) -> Iterator[memoryview]:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        view = memoryview(bytearray(CHUNK))
        done = 0
        with self._source.open() as file:
            while count := file.readinto(view[: self.size - done]):
                md5.update(view[:count])
                sha256.update(view[:count])
                done += count
                if done == self.size:
                    break
                yield view[:count]
                self._count(done)
        # The last chunk leaves only now: without it the server takes nothing.
        if done != self.size or sha256.hexdigest() != self._entry.sha256:
            raise _changed(self._source)
        self.md5 = md5.hexdigest()
        if count:
            yield view[:count]
        self._count(done)

    def _count(self, done: int) -> None:
        """Tells how far the sending has come; a second attempt counts only what is new."""
        self._meter.add(max(0, done - self._counted))
        self._counted = max(done, self._counted)


class _Reading(Meter):
    """Tells again and again that nothing has been sent yet."""

    def add(self, count: int) -> None:
        super().add(0)


def _entry(file: SourceFile, known: StatCache, meter: Meter) -> FileEntry:
    with file.open() as source:
        status = os.fstat(source.fileno())
        stamp = FileStamp.of(status)
        if sha256 := known.digest(status.st_dev, stamp):
            return FileEntry(file.path, sha256, stamp.size)
        read_at = time.time_ns()
        sha256, size = sha256_of(source, stamp.size, meter)
        after = FileStamp.of(os.fstat(source.fileno()))
    if size != stamp.size or (after.size, after.mtime_ns) != (stamp.size, stamp.mtime_ns):
        raise _changed(file)
    known.learn(status.st_dev, stamp, sha256, read_at)
    return FileEntry(file.path, sha256, size)


def _changed(file: SourceFile) -> ConflictError:
    return ConflictError(
        f"{file.path!r} was written to while it was read: upload again when nobody writes to it",
        details={"path": file.path},
    )
