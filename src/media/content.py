"""A caller's bytes behind a descriptor, and arrays on their way back: in memory, with no name, shared by passing it.

Nothing of it needs to be swept up after a crash: what no process holds any more is gone. Where the system has
no such files (macOS), a temporary file stands in that is unlinked before it is used.
"""

import fcntl
import io
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from src.media.detection import HEAD_BYTES

_DTYPES = ("|u1", "<f4", "<i4")
_ALIGNMENT = 64
_AT_ONCE = 1 << 24


class Content:
    """One input: `size` bytes behind a descriptor of ours, for `field` of a request. Closed by whoever made it.

    `closed` is called when it is.
    """

    def __init__(self, descriptor: int, size: int, field: str, closed: Callable[[], None] | None = None) -> None:
        self.descriptor = descriptor
        self.size = size
        self.field = field
        self._closed = closed

    def head(self) -> bytes:
        """Returns how it begins."""
        return os.pread(self.descriptor, min(self.size, HEAD_BYTES), 0)

    def read(self) -> bytes:
        """Returns all of it."""
        with PositionedReader(self.descriptor, self.size) as reader:
            return reader.read()

    def close(self) -> None:
        """Lets go of it; a second time does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            if self._closed is not None:
                self._closed()

    def __enter__(self) -> "Content":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class PositionedReader(io.RawIOBase):
    """A file of `size` bytes at most, read at a place of its own: a descriptor's own place is shared by its copies."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "a place before the beginning")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._place))
        read = os.preadv(self._descriptor, [view[:wanted]], self._place) if wanted else 0
        self._place += read
        return read

    def readall(self) -> bytes:
        found = bytearray(max(0, self._size - self._place))
        view, filled = memoryview(found), 0
        while filled < len(found) and (read := self.readinto(view[filled:])):
            filled += read
        return bytes(view[:filled])

    def read(self, size: int | None = -1) -> bytes:
        return self.readall() if size is None or size < 0 else super().read(size) or b""


def new_file() -> int:
    """Returns a descriptor of an empty file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("aiml-media", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_all(descriptor: int, data: Any) -> None:
    """Writes all of a buffer."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[:_AT_ONCE]) :]


def content_of(data: Any, field: str) -> Content:
    """Returns bytes as content."""
    content = Content(new_file(), memoryview(data).nbytes, field)
    try:
        write_all(content.descriptor, data)
    except BaseException:
        content.close()
        raise
    return content


@dataclass(frozen=True, slots=True)
class Pieces:
    """An array of `shape` in pieces, which are put together where they are written: it is in memory only once."""

    pieces: Sequence[Any]
    shape: tuple[int, ...]


def write_arrays(arrays: Sequence[Any]) -> tuple[int, list[dict[str, Any]]]:
    """Writes arrays (or `Pieces` of them) one after the other; returns the descriptor, and where each is."""
    descriptor, places, offset = new_file(), [], 0
    try:
        for array in arrays:
            pieces = array.pieces if isinstance(array, Pieces) else [array]
            offset += -offset % _ALIGNMENT
            dtype = pieces[0].dtype.str if len(pieces) else "|u1"
            places.append({"dtype": dtype, "shape": list(array.shape), "offset": offset})
            os.lseek(descriptor, offset, os.SEEK_SET)
            for piece in pieces:
                write_all(descriptor, piece.reshape(-1).view("u1"))
                offset += piece.nbytes
        os.ftruncate(descriptor, offset)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, places


def map_arrays(descriptor: int, places: Sequence[dict[str, Any]], most: int) -> list[Any]:
    """Returns the arrays that another process wrote, mapped and not copied; raises ValueError for what cannot be.

    The other process may have been taken over by what it decoded: the file is kept from shrinking, since
    reading beyond its end would end us, it has `most` bytes at most, and every place is checked against its size.
    """
    size = _kept_from_shrinking(descriptor)
    if size > most:
        raise ValueError(f"{size} bytes of arrays, and {most} are the most")
    memory: Any = mmap.mmap(descriptor, size) if size else b""
    return [_mapped(memory, size, place) for place in places]


def _mapped(memory: Any, size: int, place: dict[str, Any]) -> Any:
    import numpy as np

    shape, offset = tuple(map(int, place["shape"])), int(place["offset"])
    if place["dtype"] not in _DTYPES:
        raise ValueError(f"an array of {place['dtype']} was not asked for")
    count = math.prod(shape)
    if min((*shape, offset)) < 0 or count > size:
        raise ValueError("an array lies outside its file")
    if count == 0:
        return np.empty(shape, place["dtype"])
    return np.frombuffer(memory, place["dtype"], count, offset).reshape(shape)


def _kept_from_shrinking(descriptor: int) -> int:
    if hasattr(fcntl, "F_ADD_SEALS"):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return os.fstat(descriptor).st_size
