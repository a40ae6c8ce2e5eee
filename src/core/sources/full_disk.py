"""A full disk, told in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from src.core.errors import StoreUnavailableError


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Raises `StoreUnavailableError` where the block could not write because there is no room left, or no quota."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreUnavailableError(
            f"There is no room left on the disk of the data folder ({exc.strerror}): make room, then try again"
        ) from exc
