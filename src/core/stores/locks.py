"""One lock file, one holder: among threads and among processes."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

_guard = threading.Lock()
_thread_locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which is made where it is missing and never removed.

    The thread lock is not redundant: over NFS, flock holds per process.
    """
    with _thread_lock(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Unlocked by hand, since a child forked meanwhile holds a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _thread_lock(path: Path) -> threading.Lock:
    with _guard:
        return _thread_locks.setdefault(os.path.realpath(path), threading.Lock())
