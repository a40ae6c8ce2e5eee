"""A commit's tree in a folder, verified once.

Beside the folder `<target>` lies `<target>.checkout.json`, the record of what was verified: for each
file its sha256 and stamp. A file that still has its recorded stamp is not read again. Another
checkout of the same blob changes the ctime of all its hard links; such a file is hashed again, and
only when its bytes differ is the tree rebuilt. The folder is the store's as long as the record is there.
"""

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from src.core.errors import ConflictError, IntegrityError
from src.core.stores.base import Commit, FileEntry, Progress
from src.core.stores.blobs import damage
from src.core.stores.disk import swap_in, sync_folder, unique_name, write_durably
from src.core.stores.hashing import Meter, differing, in_parallel
from src.core.stores.locks import locked
from src.core.stores.stat_cache import FileStamp

_LONGEST_TICK = 0.05  # seconds; kernels stamp files with clocks that tick every 1 to 10 ms


@dataclass(frozen=True, slots=True)
class Record:
    """What lay in a target when it was verified; racy stamps are left out."""

    commit: str = ""
    files: Mapping[str, tuple[str, FileStamp]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Reads a record; an unreadable one vouches for nothing."""
        try:
            document = json.loads(path.read_bytes())
            files = {name: (sha256, FileStamp(*stamp)) for name, (sha256, *stamp) in document["files"].items()}
            return cls(document["commit"], files)
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            return cls()

    def encode(self) -> bytes:
        """Returns the JSON text: path → [sha256, inode, size, mtime_ns, ctime_ns]."""
        files = {name: [sha256, *stamp] for name, (sha256, stamp) in self.files.items()}
        return json.dumps({"commit": self.commit, "files": files}, ensure_ascii=False).encode()


class Contents(Protocol):
    """Where the bytes of a commit's files come from."""

    def holds(self, sha256: str, size: int) -> bool:
        """Whether a content is there, as far as can be told without reading it."""

    def place(self, entry: FileEntry, target: Path, meter: Meter) -> str | None:
        """Puts a file's bytes, read-only, at `target`; returns their sha256, None where they have not been read."""


class Spread(Protocol):
    """Does work for each item in several threads; the first error ends it."""

    def __call__(
        self, work: Callable[[FileEntry], str | None], items: Iterable[FileEntry], meter: Meter
    ) -> list[str | None]: ...


class Checkout:
    """Brings one target to one commit."""

    def __init__(
        self,
        commit: Commit,
        target: Path,
        contents: Contents,
        progress: Progress | None,
        *,
        spread: Spread = in_parallel,
        damage: Callable[[Commit, Collection[FileEntry]], IntegrityError] = damage,
    ) -> None:
        self._commit = commit
        self._target = target
        self._contents = contents
        self._progress = progress
        self._spread = spread
        self._damage = damage
        self._record = target.with_name(f"{target.name}.checkout.json")
        self._lock = target.with_name(f".{target.name}.checkout.lock")

    def ensure(self) -> None:
        """Leaves an intact target as it is, and builds any other anew; other processes wait meanwhile.

        Raises `IntegrityError` for damaged blobs and `ConflictError` for a folder that is not the store's;
        the target is untouched then.
        """
        self._target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            self._sweep()
            if self._is_intact():
                self._meter().add(self._commit.size)
            else:
                self._rebuild()

    def _is_intact(self) -> bool:
        found = _stamps_below(self._target)
        if found is None or found.keys() != {entry.path for entry in self._commit.files}:
            return False
        record = Record.read(self._record)
        known = record.files
        suspects = [e for e in self._commit.files if known.get(e.path) != (e.sha256, found[e.path])]
        if suspects or record.commit != self._commit.id:
            moment = self._settle(found.values())
            if self._differing(self._target, suspects):
                return False
            self._write_record(found, moment)
        return True

    def _rebuild(self) -> None:
        self._refuse_foreign()
        if missing := [entry for entry in self._commit.files if not self._contents.holds(entry.sha256, entry.size)]:
            raise self._damage(self._commit, missing)
        built = self._partial()
        try:
            built.mkdir()
            self._fill(built)
            swap_in(built, self._target)
            sync_folder(self._target.parent)
        finally:
            # What was at the target before, or else the failed attempt. Files in use live on until closed.
            shutil.rmtree(built, ignore_errors=True)

    def _fill(self, folder: Path) -> None:
        meter = self._meter()
        files = self._commit.files
        copied = self._spread(lambda entry: self._contents.place(entry, folder / entry.path, meter), files, meter)
        found = _stamps_below(folder) or {}
        moment = self._settle(found.values())
        read = dict(zip(files, copied, strict=True))
        bad = [entry for entry, sha256 in read.items() if sha256 is not None and sha256 != entry.sha256]
        if bad := bad + self._differing(folder, [entry for entry in files if read[entry] is None], meter):
            raise self._damage(self._commit, bad)
        # Before the swap, since a stamp vouches for one file's bytes, whichever tree it hangs in.
        self._write_record(found, moment)

    def _differing(self, folder: Path, files: Iterable[FileEntry], meter: Meter | None = None) -> list[FileEntry]:
        return differing(((entry, folder / entry.path) for entry in files), meter or self._meter())

    def _settle(self, stamps: Iterable[FileStamp]) -> int:
        """Waits until the filesystem's clock is past all stamps, if it soon is; returns what it says."""
        newest = max((stamp.newest_ns for stamp in stamps), default=0)
        deadline = time.monotonic() + _LONGEST_TICK
        while (moment := self._filesystem_time()) <= newest and time.monotonic() < deadline:
            time.sleep(0.001)
        return moment

    def _filesystem_time(self) -> int:
        os.utime(self._lock)
        return self._lock.stat().st_mtime_ns

    def _write_record(self, found: Mapping[str, FileStamp], moment_ns: int) -> None:
        trusted = {e.path: (e.sha256, found[e.path]) for e in self._commit.files if found[e.path].older_than(moment_ns)}
        write_durably(self._record, Record(self._commit.id, trusted).encode(), self._partial())

    def _refuse_foreign(self) -> None:
        if self._record.exists() or not self._target.exists():
            return
        if not self._target.is_dir() or any(self._target.iterdir()):
            raise ConflictError(
                f"{self._target} holds something else than {self._commit.repo}@{self._commit.id}, "
                "and no checkout made it: move it away first",
                details={"path": str(self._target)},
            )

    def _meter(self) -> Meter:
        return Meter(self._commit.size, self._progress)

    def _partial(self) -> Path:
        return self._target.with_name(f".{self._target.name}.{unique_name()}.partial")

    def _sweep(self) -> None:
        """Removes what a killed checkout of this target left; the lock is held, so nobody works there."""
        left = re.compile(rf"\.{re.escape(self._target.name)}\.[0-9a-f]{{16}}\.partial(\.old)?")
        for path in self._target.parent.iterdir():
            if left.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _stamps_below(folder: Path) -> dict[str, FileStamp] | None:
    """Returns path → stamp for plain files below a folder; None without one, or with anything else."""
    stamps: dict[str, FileStamp] = {}
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(Path(entry.path))
            elif stat.S_ISREG(status.st_mode):
                stamps[Path(entry.path).relative_to(folder).as_posix()] = FileStamp.of(status)
            else:
                return None
    return stamps
