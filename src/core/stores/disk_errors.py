"""What a disk refuses, in words: full, read-only, gone. Its errors become `StoreUnavailableError` here."""

import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from src.core.errors import StoreUnavailableError
from src.core.stores.base import Progress

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Rooted(Protocol):
    """Something that lives in a folder."""

    root: Path


S = TypeVar("S", bound=Rooted)
P = ParamSpec("P")
R = TypeVar("R")


class _CallerError(Exception):
    """Carries an `OSError` of the caller's own past whoever would take it for the disk's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def on_disk(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Turns a disk that is full, read-only or gone into `StoreUnavailableError`; all else passes unchanged."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except _CallerError as exc:
            error = exc.error
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                raise no_room(self.root, None, exc) from exc
            raise StoreUnavailableError(f"the local version store cannot be used: {exc}") from exc
        raise error

    return call


def shielded(progress: Progress | None) -> Progress | None:
    """Lets `on_disk` tell an `OSError` that the caller's progress raised (a `TimeoutError` is one) from the disk's."""
    if progress is None:
        return None

    def call(done: int, total: int) -> None:
        try:
            progress(done, total)
        except OSError as exc:
            raise _CallerError(exc) from exc

    return call


def free_bytes(folder: Path) -> int:
    """Returns how much may still be written to the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(_nearest(folder)).free


def require_room(folder: Path, needed: int) -> None:
    """Raises `StoreUnavailableError` where so many bytes do not fit beside what is there already."""
    if needed > free_bytes(folder):
        raise no_room(folder, needed, None)


@contextmanager
def writing(folder: Path, needed: int) -> Iterator[None]:
    """Says of a disk that runs full meanwhile how much was needed, and how much there is."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise no_room(folder, needed, exc) from exc
        raise


def no_room(folder: Path, needed: int | None, cause: OSError | None) -> StoreUnavailableError:
    """Returns the error that names the disk, what is needed and what is free (bytes, in `details` too)."""
    free, mount = free_bytes(folder), _mount_point(folder)
    why = f" ({os.strerror(cause.errno)})" if cause and cause.errno else ""
    need = "" if needed is None else f"{needed:,} bytes are needed, "
    return StoreUnavailableError(
        f"the disk mounted at {mount}, which holds {folder}, has no room{why}: {need}{free:,} are free. "
        "Make room there and try again; nothing has been changed",
        details={"disk": str(mount), "path": str(folder), "needed_bytes": needed, "free_bytes": free},
    )


def _nearest(folder: Path) -> Path:
    """Returns the folder itself, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _mount_point(folder: Path) -> Path:
    path = Path(os.path.realpath(_nearest(folder)))
    return next(place for place in (path, *path.parents) if os.path.ismount(place))
