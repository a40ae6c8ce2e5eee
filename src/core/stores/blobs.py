"""The bytes of all files of all repositories, each content once, named by its sha256.

`blobs/sha256/ab/<hex>`: written to a temporary file beside, hashed while it is copied, flushed to
disk, made read-only, renamed. A blob is never written again, so that whoever maps it into memory is safe.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from src.core.errors import IntegrityError
from src.core.stores.base import Commit, FileEntry
from src.core.stores.disk import make_folder, reflink, sync_folder, unique_name
from src.core.stores.disk_errors import require_room, writing
from src.core.stores.hashing import Meter, differing, sha256_of
from src.core.stores.names import is_sha256, listed


class Blobs:
    """The blobs below a store's root."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "blobs" / "sha256"
        self._temp = root / "tmp"

    def path(self, sha256: str) -> Path:
        """Returns where a blob is, or would be."""
        return self._folder / sha256[:2] / sha256

    def holds(self, sha256: str, size: int) -> bool:
        """Whether a blob is there with the right size; its bytes are not read."""
        try:
            return self.path(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def add(self, source: FileIO, expected: int, meter: Meter) -> tuple[str, int]:
        """Takes in a file of the expected size; returns the sha256 and size of the bytes as they were copied.

        Survives a power cut only after `sync`.
        """
        temp = self._temp / unique_name()
        try:
            with open(temp, "xb") as copy:
                sha256, size = _taken(source, temp, expected, meter, copy)
                copy.flush()
                # A blob of that name that went bad on disk is replaced by the good bytes in hand.
                if not self._is_whole(sha256, size, meter):
                    os.fchmod(copy.fileno(), 0o444)
                    os.fsync(copy.fileno())
                    make_folder(self.path(sha256).parent)
                    os.replace(temp, self.path(sha256))
        finally:
            temp.unlink(missing_ok=True)
        return sha256, size

    def clones(self, source: FileIO) -> bool:
        """Whether a file can be taken in without a copy of its bytes."""
        with TemporaryFile(dir=self._temp, buffering=0) as copy:
            return reflink(source.fileno(), copy.fileno())

    def stored(self) -> Iterator[Path]:
        """Yields the file of every blob that is stored."""
        return (path for path in self._folder.glob("??/*") if is_sha256(path.name))

    def read(self, entry: FileEntry, limit: int) -> bytes | None:
        """Returns the first `limit` bytes of a blob; None without it, or where the whole was read and is wrong."""
        try:
            with open(self.path(entry.sha256), "rb") as file:
                data = file.read(min(limit, entry.size))
        except FileNotFoundError:
            return None
        wrong = limit >= entry.size and hashlib.sha256(data).hexdigest() != entry.sha256
        return None if wrong else data

    def sync(self, digests: Iterable[str]) -> None:
        """Makes the names of blobs survive a power cut, also of those that another process has just added."""
        for folder in {self._folder, *(self.path(sha256).parent for sha256 in digests)}:
            sync_folder(folder)

    def place(self, entry: FileEntry, target: Path, meter: Meter) -> str | None:
        """Puts a blob's bytes, read-only, at `target`: by reflink, else as a hard link, else as a copy.

        Returns the sha256 of what was copied; None where the bytes are shared and have not been read.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        blob = self.path(entry.sha256)
        if _cloned(blob, target) or _linked(blob, target):
            return None
        require_room(target.parent, entry.size)
        with writing(target.parent, entry.size), FileIO(blob) as source, open(target, "xb") as copy:
            sha256, _ = sha256_of(source, entry.size, meter, copy)
            copy.flush()
            os.fchmod(copy.fileno(), 0o444)
            os.fsync(copy.fileno())
        return sha256

    def damaged(self, files: Iterable[FileEntry], meter: Meter) -> list[FileEntry]:
        """Rereads the blobs of files; returns the files whose blob is missing or has other bytes."""
        files = list(files)
        blobs = {entry.sha256: entry for entry in files}.values()
        bad = {entry.sha256 for entry in differing(((entry, self.path(entry.sha256)) for entry in blobs), meter)}
        return [entry for entry in files if entry.sha256 in bad]

    def _is_whole(self, sha256: str, size: int, meter: Meter) -> bool:
        if not self.holds(sha256, size):
            return False
        uncounted = Meter(0, lambda done, total: meter.add(0))  # yet as easily stopped
        try:
            with FileIO(self.path(sha256)) as blob:
                return sha256_of(blob, size, uncounted)[0] == sha256
        except FileNotFoundError:  # collected meanwhile
            return False


def _taken(source: FileIO, temp: Path, expected: int, meter: Meter, copy: BinaryIO) -> tuple[str, int]:
    """Gets a file's bytes into `copy`, at `temp`; returns their sha256 and size, read from the copy if it is shared."""
    if not reflink(source.fileno(), copy.fileno()):
        return sha256_of(source, expected, meter, copy)
    with FileIO(temp) as clone:
        return sha256_of(clone, expected, meter)


def _cloned(blob: Path, target: Path) -> bool:
    with FileIO(blob) as source, open(target, "xb") as copy:
        os.fchmod(copy.fileno(), 0o444)
        if reflink(source.fileno(), copy.fileno()):
            return True
    target.unlink()
    return False


def _linked(blob: Path, target: Path) -> bool:
    try:
        os.link(blob, target)
    except OSError:  # another filesystem, one without links, or too many of them
        return False
    return True


def damage(commit: Commit, files: Collection[FileEntry]) -> IntegrityError:
    """Returns the error that names the damaged files of a commit."""
    paths = sorted(entry.path for entry in files)
    return IntegrityError(
        f"{commit.repo}@{commit.id}: missing from the store, or differing from their sha256: "
        f"{listed(paths)}. Uploading the same files again repairs it",
        details={"repo": commit.repo, "commit": commit.id, "files": paths},
    )
