"""Brings the files of one commit, each hashed as it comes and fetched again where it comes out wrong."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.core.errors import StoreUnavailableError
from src.core.sources.hub_client import HubClient
from src.core.sources.hub_files import HubFile
from src.core.sources.hub_partial import PartialFolder
from src.core.sources.hub_patience import PassingError, Patience
from src.core.stores.disk import start_writeback
from src.core.stores.disk_errors import writing
from src.core.stores.hashing import CHUNK, WRITEBACK

logger = logging.getLogger(__name__)

_TRIES = 3


class DamagedError(Exception):
    """A file came with other bytes than its digest says, as often as it was fetched."""


class Tally:
    """Counts bytes of several threads; the count goes back where a file is thrown away."""

    def __init__(self, done: int) -> None:
        self.done = done
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts bytes that are there now, or are no more."""
        with self._lock:
            self.done += count


class Transfer:
    """Fetches files of one commit into a partial folder; `bring` may be called from several threads.

    `older` is a folder of files that may be the same, with their digests by path: those are copied from it.
    """

    def __init__(
        self,
        client: HubClient,
        commit: str,
        partial: PartialFolder,
        *,
        patience: Patience,
        tally: Tally,
        older: tuple[Path, dict[str, str]] | None = None,
    ) -> None:
        self._client, self._commit = client, commit
        self._partial = partial
        self._patience = patience
        self._tally = tally
        self._older = older
        self.damaged: list[str] = []

    def bring(self, file: HubFile) -> None:
        """Returns once the file is in the tree, whole, with the right digest, and on disk.

        What has arrived before is gone on with. Raises `DamagedError` after three fetches that came out wrong,
        `SourceUnavailableError` where the hub went on failing, `StoreUnavailableError` where the disk does.
        """
        with _disk_told(self._partial.tree, file):
            path = self._partial.arriving(file)
            wrong = 0
            while not (growing := self._grown(file, path, may_copy=not wrong)).is_right():
                path.unlink()
                self._tally.add(-growing.length)
                wrong += not growing.taken_up  # what was wrong from an earlier time is no failure of this one
                if wrong == _TRIES:
                    self.damaged.append(file.path)
                    raise DamagedError(file.path)
                logger.warning("%s has other bytes than its digest on the hub says: it is fetched again", file.path)
            self._partial.arrived(file)

    def _grown(self, file: HubFile, path: Path, *, may_copy: bool) -> "_Growing":
        """Completes a file, which is on disk then where it is right."""
        with open(path, "a+b", buffering=0) as out:
            growing = _Growing(file, out.fileno(), self._tally, self._patience)
            growing.take_up()
            self._patience.persist(lambda: self._receive(growing, may_copy), lambda: growing.received)
            if growing.is_right():
                os.fsync(out.fileno())
        return growing

    def _receive(self, growing: "_Growing", may_copy: bool) -> None:
        file = growing.file
        if growing.length == file.size:
            return
        same = self._same_elsewhere(file) if may_copy and not growing.length else None
        if same:
            growing.copy(same)
            return
        with self._client.content(self._commit, file.path, growing.length) as (start, chunks):
            if start != growing.length:
                growing.begin_again()
            for chunk in chunks:
                growing.add(chunk)
                if growing.length > file.size:
                    break
        if growing.length < file.size:
            raise PassingError(f"The hub ended the connection at byte {growing.length:,} of {file.path}")

    def _same_elsewhere(self, file: HubFile) -> Path | None:
        if self._older is None or self._older[1].get(file.path) != file.digest:
            return None
        path = self._older[0] / file.path
        return path if path.is_file() and path.stat().st_size == file.size else None


class _Growing:
    """A file that grows by what arrives, hashed meanwhile."""

    def __init__(self, file: HubFile, descriptor: int, tally: Tally, patience: Patience) -> None:
        self.file = file
        self.length = 0
        self.taken_up = 0
        self.received = 0
        self._descriptor = descriptor
        self._tally, self._patience = tally, patience
        self._hasher = file.hasher()
        self._sent = 0

    def take_up(self) -> None:
        """Hashes what is there already, which the tally knows of."""
        while chunk := os.pread(self._descriptor, CHUNK, self.length):
            self._patience.check()
            self._hasher.update(chunk)
            self.length += len(chunk)
        self.taken_up = self._sent = self.length

    def begin_again(self) -> None:
        """Throws away what is there."""
        os.ftruncate(self._descriptor, 0)
        self._tally.add(-self.length)
        self.length = self._sent = 0
        self._hasher = self.file.hasher()

    def add(self, chunk: bytes) -> None:
        """Writes bytes to the end; raises `StoppedError` once the work is to stop."""
        self._patience.check()
        chunk = chunk[: self.file.size - self.length + 1]  # one byte too many tells enough
        left = memoryview(chunk)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._hasher.update(chunk)
        self.length += len(chunk)
        self.received += len(chunk)
        self._tally.add(len(chunk))
        if self.length - self._sent >= WRITEBACK:
            start_writeback(self._descriptor, self._sent, self.length - self._sent)
            self._sent = self.length

    def copy(self, path: Path) -> None:
        """Takes the bytes from another file."""
        with open(path, "rb", buffering=0) as source:
            while chunk := source.read(CHUNK):
                self.add(chunk)

    def is_right(self) -> bool:
        """Whether everything is there, as its digest says."""
        return self.length == self.file.size and self.file.matches(self._hasher)


@contextmanager
def _disk_told(folder: Path, file: HubFile) -> Iterator[None]:
    try:
        with writing(folder, file.size):
            yield
    except OSError as exc:
        raise StoreUnavailableError(f"{file.path} cannot be written below {folder}: {exc}") from exc
