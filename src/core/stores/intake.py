"""Takes the files of a source folder into the blobs, reading only what is new."""

import os
from io import FileIO
from pathlib import Path

from src.core.errors import ConflictError
from src.core.stores.base import FileEntry, Progress
from src.core.stores.blobs import Blobs
from src.core.stores.disk_errors import free_bytes, require_room, writing
from src.core.stores.hashing import Meter, in_parallel
from src.core.stores.source_tree import SourceFile
from src.core.stores.stat_cache import FileStamp, StatCache


def take_in(files: list[SourceFile], blobs: Blobs, root: Path, progress: Progress | None) -> tuple[FileEntry, ...]:
    """Stores the files' bytes, safe from a power cut, and returns their entries.

    Raises `ConflictError` where a file is written to meanwhile (the bytes read are those of no one moment),
    and `StoreUnavailableError` where they do not fit on the disk, at once if their sizes tell.
    """
    cache = StatCache(root)
    meter = Meter(sum(file.size for file in files), progress)
    new = [file for file in files if not _known(os.stat(file.real), blobs, cache)]
    needed = sum(file.size for file in new)
    if needed > free_bytes(root):
        _refuse_hopeless(new, blobs, root)
    with writing(root, needed):
        entries = in_parallel(lambda file: _entry(file, blobs, cache, meter), files, meter)
        blobs.sync(entry.sha256 for entry in entries)
        cache.save()
    return tuple(sorted(entries))


def _refuse_hopeless(files: list[SourceFile], blobs: Blobs, root: Path) -> None:
    """Refuses files for which there is no room, unless they may turn out to need none: shared, or stored already."""
    with files[0].open() as source:
        if blobs.clones(source):
            return
    stored = {path.stat().st_size for path in blobs.stored()}
    require_room(root, sum(file.size for file in files if file.size not in stored))


def _known(status: os.stat_result, blobs: Blobs, cache: StatCache) -> str | None:
    sha256 = cache.digest(status.st_dev, FileStamp.of(status))
    return sha256 if sha256 and blobs.holds(sha256, status.st_size) else None


def _entry(file: SourceFile, blobs: Blobs, cache: StatCache, meter: Meter) -> FileEntry:
    with file.open() as source:
        status = os.fstat(source.fileno())
        stamp = FileStamp.of(status)
        if known := _known(status, blobs, cache):
            meter.add(stamp.size)
            return FileEntry(file.path, known, stamp.size)
        moment = cache.moment(status.st_dev)
        sha256, size = blobs.add(source, stamp.size, meter)
        _refuse_changed(file, source, stamp, size)
    cache.learn(status.st_dev, stamp, sha256, moment)
    return FileEntry(file.path, sha256, size)


def _refuse_changed(file: SourceFile, source: FileIO, before: FileStamp, size: int) -> None:
    after = FileStamp.of(os.fstat(source.fileno()))
    # Not ctime: a new hard link to the file changes it, and no byte.
    if (after.size, after.mtime_ns) != (before.size, before.mtime_ns) or size != before.size:
        raise ConflictError(
            f"{file.path!r} was written to while it was read: upload again when nobody writes to it",
            details={"path": file.path},
        )
