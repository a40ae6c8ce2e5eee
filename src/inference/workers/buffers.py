"""Arrays and bytes on their way between processes: raw beside the JSON, the big ones in shared memory.

A body with buffers is the length of its head (u32, big-endian), the head (JSON: `value`, in which each
buffer's place holds null, and `places`), and the small buffers one after the other. Where a buffer
belongs is told by its path, never by a mark inside the value: a stranger's data cannot pose as one. A big
buffer is a file in shared memory, which its reader removes as soon as it has opened it; what nobody opened
goes with `discard`, or with the next start after its writer died.
"""

import itertools
import mmap
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

INLINE_BYTES = 1 << 15
"""Buffers above this size go through shared memory: a socket holds two pictures, and a worker that computes takes none
out of it, so that what waits for the next batch would wait in the service."""

_LENGTH = struct.Struct(">I")
_PREFIX = "aiml-buffer"
_numbers = itertools.count()


def folder() -> Path:
    """Returns where shared buffers lie: in memory on Linux, in the temporary folder elsewhere."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else Path(tempfile.gettempdir())


def pack(value: Any) -> tuple[bytes, list[str]]:
    """Returns a body for a value with arrays or bytes in it, and the shared files that it names.

    Raises TypeError for what is neither JSON, bytes nor a numpy array or number.
    """
    places: list[dict[str, Any]] = []
    segments: list[bytes] = []
    files: list[str] = []
    try:
        plain = _extract(value, (), places, segments, files)
        head = orjson.dumps({"value": plain, "places": places}, option=orjson.OPT_NON_STR_KEYS)
    except BaseException:
        discard(files)
        raise
    return b"".join([_LENGTH.pack(len(head)), head, *segments]), files


def unpack(body: bytes) -> Any:
    """Returns the value of a packed body; arrays in shared memory are mapped, not copied."""
    (length,) = _LENGTH.unpack_from(body)
    head = orjson.loads(memoryview(body)[_LENGTH.size : _LENGTH.size + length])
    rest = memoryview(body)[_LENGTH.size + length :]
    value = head["value"]
    for place in head["places"]:
        size = place["size"]
        if place["file"] is not None:
            buffer: Any = _mapped(place["file"], size)
        else:
            buffer, rest = rest[:size], rest[size:]
        value = _put(value, place["path"], _restored(buffer, place))
    return value


def discard(files: Sequence[str]) -> None:
    """Removes shared files that nobody opened."""
    for name in files:
        (folder() / name).unlink(missing_ok=True)


def sweep() -> int:
    """Removes what processes left behind that are dead; returns how many files."""
    removed = 0
    for path in folder().glob(f"{_PREFIX}-*"):
        pid = path.name.split("-")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _extract(
    value: Any, path: tuple[Any, ...], places: list[dict[str, Any]], segments: list[bytes], files: list[str]
) -> Any:
    if isinstance(value, dict):
        return {str(key): _extract(item, (*path, str(key)), places, segments, files) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_extract(item, (*path, place), places, segments, files) for place, item in enumerate(value)]
    if isinstance(value, bytes | bytearray | memoryview):
        _add(bytes(value), {"kind": "bytes"}, path, places, segments, files)
        return None
    if type(value).__module__ == "numpy":
        return _extract_numpy(value, path, places, segments, files)
    return value


def _extract_numpy(
    value: Any, path: tuple[Any, ...], places: list[dict[str, Any]], segments: list[bytes], files: list[str]
) -> Any:
    import numpy

    if isinstance(value, numpy.generic):
        return value.item()
    if not isinstance(value, numpy.ndarray) or value.dtype.hasobject:
        raise TypeError(f"{type(value).__name__} cannot go to another process")
    array = numpy.ascontiguousarray(value)
    facts = {"kind": "array", "dtype": array.dtype.str, "shape": list(value.shape)}
    _add(array.reshape(-1).view(numpy.uint8).data, facts, path, places, segments, files)
    return None


def _add(
    data: Any,
    facts: dict[str, Any],
    path: tuple[Any, ...],
    places: list[dict[str, Any]],
    segments: list[bytes],
    files: list[str],
) -> None:
    size = len(data)
    name = _shared(data, files) if size > INLINE_BYTES else None
    if name is None:
        segments.append(bytes(data))
    places.append({"path": list(path), "size": size, "file": name, **facts})


def _shared(data: Any, files: list[str]) -> str | None:
    """Writes a shared file and returns its name; None where there is no room, as in a container's 64 MB."""
    name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
    try:
        descriptor = os.open(folder() / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        discard([name])
        return None
    files.append(name)
    return name


def _mapped(name: str, size: int) -> mmap.mmap:
    if "/" in name or not name.startswith(_PREFIX):
        raise ValueError("a shared buffer has a name of ours")
    path = folder() / name
    descriptor = os.open(path, os.O_RDWR)
    try:
        path.unlink()
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _restored(buffer: Any, place: dict[str, Any]) -> Any:
    if place["kind"] == "bytes":
        return bytes(buffer)
    import numpy

    return numpy.frombuffer(buffer, dtype=numpy.dtype(place["dtype"])).reshape(place["shape"])


def _put(value: Any, path: Sequence[Any], item: Any) -> Any:
    if not path:
        return item
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = item
    return value


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
