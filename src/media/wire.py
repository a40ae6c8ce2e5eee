"""The messages between the pool and a decoder process: a length (u32, big-endian) and JSON; descriptors ride along."""

import socket
import struct
from typing import Any

import orjson

LENGTH = struct.Struct(">I")
MAX_MESSAGE = 1 << 20
MAX_DESCRIPTORS = 4


class BrokenMessageError(Exception):
    """The other side does not keep to this."""


def encode(value: Any) -> bytes:
    """Returns a message's bytes."""
    body = orjson.dumps(value)
    return LENGTH.pack(len(body)) + body


class Inbox:
    """Puts together what arrives on a stream socket."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.descriptors: list[int] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left behind the messages that were taken."""
        return not self._data

    def receive(self, connection: socket.socket) -> bool:
        """Takes what is there; returns False at the end of the stream.

        Raises BlockingIOError where nothing is, `BrokenMessageError` where more descriptors come than belong to a
        message: a process that decodes strangers' bytes must not fill the table of this one.
        """
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, MAX_DESCRIPTORS)
        self.descriptors += descriptors
        if len(self.descriptors) > MAX_DESCRIPTORS:
            raise BrokenMessageError(f"{len(self.descriptors)} descriptors beside a message")
        self._data += data
        return bool(data)

    def message(self) -> Any | None:
        """Returns the next whole message, or None; raises `BrokenMessageError`."""
        if len(self._data) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._data)
        if length > MAX_MESSAGE:
            raise BrokenMessageError(f"a message of {length} bytes")
        end = LENGTH.size + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[LENGTH.size : end])
        del self._data[:end]
        try:
            return orjson.loads(body)
        except ValueError as exc:
            raise BrokenMessageError("a message that is no JSON") from exc
