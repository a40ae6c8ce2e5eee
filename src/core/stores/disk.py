"""Durable writes, the filesystem's own clock, and system calls that Python does not offer: reflink, exchange …"""

import ctypes
import fcntl
import os
import secrets
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

_FICLONE = 0x40049409  # linux/fs.h
_AT_FDCWD = -100  # linux/fcntl.h
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
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


def read_ahead(descriptor: int) -> None:
    """Tells the kernel that a file will be read from its beginning to its end."""
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def start_writeback(descriptor: int, offset: int, count: int) -> None:
    """Lets the kernel begin to write a part of a file to disk, so that the flush at the end finds little to do.

    It promises nothing: only `os.fsync` does. Without it gigabytes wait for that flush, and whoever else
    flushes a small file meanwhile (a database) waits with them.
    """
    with suppress(AttributeError):  # Linux only
        call = ctypes.CDLL(None).sync_file_range
        call(descriptor, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)


def filesystem_time(path: Path) -> int:
    """Returns what the clock of a file's filesystem says, in nanoseconds, by touching that file.

    A change made there from now on is stamped with this time or a later one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.utime(descriptor)
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def sweep(folder: Path, age: float) -> None:
    """Removes what has lain in a folder for more than `age` seconds."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps too, or has finished
            if path.lstat().st_mtime < time.time() - age:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


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
