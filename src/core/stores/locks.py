"""Lock files: one holder, or many users and now and then one owner; among threads and among processes."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary


class _Room:
    """What the threads of this process share about one lock file: how many use it, by one descriptor."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.users = 0
        self.descriptor = -1


_guard = threading.Lock()
_thread_locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_rooms: WeakValueDictionary[str, _Room] = WeakValueDictionary()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which is made where it is missing and never removed.

    The thread lock is not redundant: over NFS, flock holds per process.
    """
    with _guard:
        thread_lock = _thread_locks.setdefault(os.path.realpath(path), threading.Lock())
    with thread_lock, _flock(path, fcntl.LOCK_EX):
        yield


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Uses what the lock file `path` protects, beside any number of other users, but never beside its owner.

    It may not be entered again by a thread that is inside.
    """
    room = _room(path)
    with room.changed:
        if not room.users:
            room.descriptor = _acquire(path, fcntl.LOCK_SH)
        room.users += 1
    try:
        yield
    finally:
        with room.changed:
            room.users -= 1
            if not room.users:
                _release(room.descriptor)
                room.changed.notify_all()


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Owns what the lock file `path` protects: waits until nobody uses it, and lets nobody in meanwhile."""
    room = _room(path)
    with room.changed:
        room.changed.wait_for(lambda: not room.users)
        with _flock(path, fcntl.LOCK_EX):
            yield


def _room(path: Path) -> _Room:
    with _guard:
        return _rooms.setdefault(os.path.realpath(path), _Room())


@contextmanager
def _flock(path: Path, kind: int) -> Iterator[None]:
    descriptor = _acquire(path, kind)
    try:
        yield
    finally:
        _release(descriptor)


def _acquire(path: Path, kind: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _release(descriptor: int) -> None:
    # Unlocked by hand, since a child forked meanwhile holds a copy of the descriptor.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
