"""The frames between the service and a worker process.

A frame is a header of 14 bytes, big-endian (length of the body: u32, kind: u8, priority: i8, request id: u64),
and the body: JSON, or a packed body (see `buffers`) where the kind's highest bit is set. The first frame each side
sends is HELLO with the protocol version. Frames may arrive in any cut; anything that breaks these rules
raises `ProtocolError`, and the connection is given up.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from src.inference.workers import buffers

PROTOCOL_VERSION = 2
HEADER = struct.Struct(">IBbQ")
MAX_BODY = 1 << 30
PACKED = 0x80


class Kind(IntEnum):
    """What a frame means."""

    HELLO = 1
    LOAD = 2
    LOADED = 3
    INFER = 4
    RESULT = 5
    ERROR = 6
    CANCEL = 7
    CHUNK = 8


class Frame(NamedTuple):
    """One message; `id` 0 belongs to no request. `priority`: of two that wait, the higher one goes first."""

    kind: Kind
    id: int
    body: bytes
    packed: bool = False
    priority: int = 0

    def value(self) -> Any:
        """Returns the body's value; arrays in shared memory can be taken once."""
        try:
            return buffers.unpack(self.body) if self.packed else orjson.loads(self.body)
        except (ValueError, KeyError, TypeError, struct.error) as exc:
            raise ProtocolError(f"the body of a {self.kind.name} frame cannot be read: {exc}") from exc

    def drop(self) -> None:
        """Lets go of a body that nobody wants: what it has in shared memory is given back."""
        if self.packed:
            with suppress(FileNotFoundError):  # given back already
                self.value()


class ProtocolError(Exception):
    """The other side does not speak this protocol."""


def encode(kind: Kind, request_id: int = 0, value: Any = None, priority: int = 0) -> bytes:
    """Returns a frame's bytes; raises TypeError for a value that JSON cannot hold."""
    body = b"" if value is None else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return HEADER.pack(len(body), kind, priority, request_id) + body


def encode_any(kind: Kind, request_id: int, value: Any, priority: int = 0) -> tuple[bytes, list[str]]:
    """Returns a frame for a value with arrays or bytes too, and the shared files that it names."""
    try:
        return encode(kind, request_id, value, priority), []
    except TypeError:
        body, files = buffers.pack(value)
        return HEADER.pack(len(body), kind | PACKED, priority, request_id) + body, files


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames completed by `data`."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, marked, priority, request_id = HEADER.unpack_from(self._buffer)
            kind = marked & ~PACKED
            if length > MAX_BODY or kind not in Kind._value2member_map_:
                raise ProtocolError(f"garbled frame header (kind {kind}, length {length})")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[HEADER.size : end])
            del self._buffer[:end]
            yield Frame(Kind(kind), request_id, body, bool(marked & PACKED), priority)


def hello() -> bytes:
    """Returns the first frame of either side."""
    return encode(Kind.HELLO, 0, {"protocol": PROTOCOL_VERSION})


def check_hello(frame: Frame) -> None:
    """Raises `ProtocolError` unless the frame is a HELLO of this version."""
    value = frame.value() if frame.kind is Kind.HELLO else None
    spoken = value.get("protocol") if isinstance(value, dict) else value
    if spoken != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {spoken}, expected {PROTOCOL_VERSION}")
