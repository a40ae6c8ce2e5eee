"""Takes the files of a source folder into the blobs, reading only what is new."""

import os
import time
from io import FileIO
from pathlib import Path

from src.core.errors import ConflictError
from src.core.stores.base import FileEntry, Progress
from src.core.stores.blobs import Blobs
from src.core.stores.hashing import Meter, in_parallel
from src.core.stores.source_tree import SourceFile
from src.core.stores.stat_cache import FileStamp, StatCache


def take_in(files: list[SourceFile], blobs: Blobs, root: Path, progress: Progress | None) -> tuple[FileEntry, ...]:
    """Stores the files' bytes, safe from a power cut, and returns their entries.

    Raises `ConflictError` where a file is written to meanwhile: the bytes read are those of no one moment.
    """
    cache = StatCache(root)
    meter = Meter(sum(file.size for file in files), progress)
    entries = in_parallel(lambda file: _entry(file, blobs, cache, meter), files)
    blobs.sync(entry.sha256 for entry in entries)
    cache.save()
    return tuple(sorted(entries))


def _entry(file: SourceFile, blobs: Blobs, cache: StatCache, meter: Meter) -> FileEntry:
    with file.open() as source:
        status = os.fstat(source.fileno())
        stamp = FileStamp.of(status)
        known = cache.digest(status.st_dev, stamp)
        if known and blobs.holds(known, stamp.size):
            meter.add(stamp.size)
            return FileEntry(file.path, known, stamp.size)
        read_at = time.time_ns()
        sha256, size = blobs.add(source, stamp.size, meter)
        _refuse_changed(file, source, stamp, size)
    cache.learn(status.st_dev, stamp, sha256, read_at)
    return FileEntry(file.path, sha256, size)


def _refuse_changed(file: SourceFile, source: FileIO, before: FileStamp, size: int) -> None:
    after = FileStamp.of(os.fstat(source.fileno()))
    # Not ctime: a new hard link to the file changes it, and no byte.
    if (after.size, after.mtime_ns) != (before.size, before.mtime_ns) or size != before.size:
        raise ConflictError(
            f"{file.path!r} was written to while it was read: upload again when nobody writes to it",
            details={"path": file.path},
        )
