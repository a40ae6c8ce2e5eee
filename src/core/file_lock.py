"""A lock file with one holder at a time, among threads and among processes, that is not waited for without end."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL = 0.01


@contextmanager
def file_locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Holds the lock file `path`, made where it is missing and never removed.

    Raises `TimeoutError` where somebody else still holds it after `timeout` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, path, time.monotonic() + timeout)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # by hand: a child forked meanwhile holds a copy
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} is still held by somebody else") from None
            time.sleep(_POLL)
