"""What a file looked like when it was hashed, so that an unchanged one is not hashed again."""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from src.core.stores.disk import filesystem_time, unique_name, write_durably
from src.core.stores.locks import locked
from src.core.stores.names import is_sha256

RACY_NS = 2_000_000_000
"""The coarsest time stamps in use (FAT's), in nanoseconds."""

_MOST_ENTRIES = 100_000


class FileStamp(NamedTuple):
    """What changes whenever a file's bytes do."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileStamp":
        """Takes the stamp out of a stat result."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def newest_ns(self) -> int:
        """When the file was last touched."""
        return max(self.mtime_ns, self.ctime_ns)

    def older_than(self, moment_ns: int) -> bool:
        """Whether a change made from `moment_ns` on would show in the stamp.

        One made within the same tick of the clock would not: git's rule for racy entries
        (git, Documentation/technical/racy-git.txt).
        """
        return self.newest_ns < moment_ns


class StatCache:
    """Stamps of source files and their digests, kept in `stat-cache.json`; losing it costs only time.

    One object serves one upload: it reads the file when made, and `save` adds what was learnt.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "stat-cache.json"
        self._temp = root / "tmp" / unique_name()
        self._lock = root / "stat-cache.lock"
        self._device = root.stat().st_dev
        self._known = self._load()
        self._learnt: dict[str, str] = {}

    def digest(self, device: int, stamp: FileStamp) -> str | None:
        """Returns the sha256 of a file that is as it was when it was hashed."""
        look, _, sha256 = self._known.get(_key(device, stamp), "").rpartition(" ")
        return sha256 if look == _look(stamp) and is_sha256(sha256) else None

    def moment(self, device: int) -> int:
        """Returns the time, for `learn`, from which on a change to a file of a device shows in its stamp.

        The store's own filesystem is asked what its clock says; another may not be written to, and gets
        a margin for the coarsest stamps instead.
        """
        if device == self._device:
            return filesystem_time(self._lock)
        return time.time_ns() - RACY_NS

    def learn(self, device: int, stamp: FileStamp, sha256: str, moment_ns: int) -> None:
        """Notes a digest; a racy stamp is left out. `moment_ns` is the moment just before the reading."""
        if stamp.older_than(moment_ns):
            self._learnt[_key(device, stamp)] = f"{_look(stamp)} {sha256}"

    def save(self) -> None:
        """Adds what was learnt to the file; the oldest entries make room."""
        if not self._learnt:
            return
        with locked(self._lock):
            kept = {key: value for key, value in self._load().items() if key not in self._learnt}
            newest = list({**kept, **self._learnt}.items())[-_MOST_ENTRIES:]
            write_durably(self._path, json.dumps(dict(newest)).encode(), self._temp)

    def clear(self) -> None:
        """Forgets everything, so that the next upload reads every byte."""
        self._path.unlink(missing_ok=True)

    def _load(self) -> dict[str, str]:
        try:
            values = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) and all(isinstance(v, str) for v in values.values()) else {}


def _key(device: int, stamp: FileStamp) -> str:
    return f"{device}:{stamp.inode}"


def _look(stamp: FileStamp) -> str:
    return f"{stamp.size} {stamp.mtime_ns} {stamp.ctime_ns}"
