"""The folder of files that wait for their request's answer: one for each process, swept after one that died."""

import fcntl
import os
import shutil
import threading
from pathlib import Path

from src.core.file_lock import file_locked
from src.core.stores.disk import unique_name

_PATIENCE = 30.0  # seconds; sweeping takes moments


class Arrivals:
    """Gives out folders below `root`; its methods block.

    A process holds a lock on the folder that its uploads are in, so that another one beside it over the same data
    folder does not take them for what a crash left.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._own: tuple[Path, int] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Removes what dead processes left, and takes a folder for this one; a second time does nothing."""
        with self._lock:
            if self._own is None:
                self._root.mkdir(parents=True, exist_ok=True)
                with file_locked(self._root / ".lock", timeout=_PATIENCE):
                    self._sweep()
                    self._own = self._take()

    def new_folder(self) -> Path:
        """Returns the path of a folder for one request, which is not made yet."""
        self.start()
        assert self._own is not None
        return self._own[0] / unique_name()

    def close(self) -> None:
        """Removes this process's folder and all that is in it."""
        with self._lock:
            if self._own is not None:
                (folder, descriptor), self._own = self._own, None
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)

    def _take(self) -> tuple[Path, int]:
        folder = self._root / unique_name()
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder, descriptor

    def _sweep(self) -> None:
        for folder in self._root.iterdir():
            if folder.is_dir() and not _is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
