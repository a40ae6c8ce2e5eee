"""Durable writes, and the two system calls that Python does not offer: reflink and exchange."""

import ctypes
import fcntl
import os
import secrets
import sys
from pathlib import Path

_FICLONE = 0x40049409  # linux/fs.h
_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h; RENAME_SWAP in macOS's sys/stdio.h has the same value


def unique_name() -> str:
    """Returns a file name that nobody else has."""
    return secrets.token_hex(8)


def sync_folder(folder: Path) -> None:
    """Makes the folder's own entries survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents where they are missing, durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_durably(path: Path, data: bytes, temp: Path) -> None:
    """Replaces a file in one step, by way of `temp` on the same filesystem."""
    try:
        with open(temp, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
    sync_folder(path.parent)


def reflink(source: int, target: int) -> bool:
    """Lets a file share the blocks of another, copy on write; returns whether the filesystem can."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def swap_in(new: Path, target: Path) -> None:
    """Puts the folder `new` where `target` is; what was there lies at `new` afterwards.

    It is one step where the kernel can exchange two paths. Elsewhere `target` is missing for an
    instant, never half there.
    """
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        aside = new.with_name(new.name + ".old")
        os.rename(target, aside)
        os.rename(new, target)
        os.rename(aside, new)


def _exchange(left: Path, right: Path) -> bool:
    libc = ctypes.CDLL(None)
    first, second = os.fsencode(left), os.fsencode(right)
    try:
        if sys.platform == "darwin":
            return bool(libc.renamex_np(first, second, _RENAME_EXCHANGE) == 0)
        return bool(libc.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE) == 0)
    except AttributeError:  # a C library from before 2018
        return False
