"""Whether a file is what its name says: magic bytes, whole headers, text that is text. Nothing is executed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from src.core.sources.file_rules import PICKLE, RefusedError
from src.core.sources.pickles import HEAD, is_pickle
from src.core.sources.safetensors_header import BrokenHeaderError, read_header

_MAX_JSON = 128 * 1024 * 1024
_HDF5 = b"\x89HDF\r\n\x1a\n"
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_PROGRAMS = (
    b"\x7fELF",
    b"#!/",
    b"\0asm",
    b"\xca\xfe\xba\xbe",  # Java's class files, macOS's programs for several processors
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
)
# The fields of ModelProto. Source: onnx/onnx.proto.
_ONNX_FIELDS, _ONNX_GRAPH = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}, 7


def check_format(path: Path, kind: str) -> bool:
    """Raises `RefusedError` unless the file is of its kind; returns whether it is a pickle, to be tried out."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    _refuse_program(head)
    if kind == PICKLE or is_pickle(path, head):
        return True
    check = _CHECKS.get(kind)
    if check:
        check(path, head)
    return False


def _refuse_program(head: bytes) -> None:
    portable = int.from_bytes(head[0x3C:0x40], "little")  # where Windows programs have their real header
    if head.startswith(_PROGRAMS) or (head[:2] == b"MZ" and head[portable : portable + 4] == b"PE\0\0"):
        raise RefusedError("is a program, whatever its name: leave it out")


def _safetensors(path: Path, head: bytes) -> None:
    try:
        read_header(path)
    except BrokenHeaderError as exc:
        raise RefusedError(str(exc)) from exc


def _json(path: Path, head: bytes) -> None:
    if path.stat().st_size > _MAX_JSON:
        raise RefusedError(f"is larger than {_MAX_JSON} bytes, which is too much for JSON of a model")
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise RefusedError(f"is no JSON: {exc}") from exc


def _text(path: Path, head: bytes) -> None:
    with open(path, "rb") as file:
        while chunk := file.read(1024 * 1024):
            if b"\0" in chunk:
                raise RefusedError("is no text: it holds NUL bytes")


def _gguf(path: Path, head: bytes) -> None:
    if head[:4] != b"GGUF" or len(head) < 24 or not 1 <= int.from_bytes(head[4:8], "little") <= 100:
        raise RefusedError("is no GGUF file")


def _hdf5(path: Path, head: bytes) -> None:
    # Something may stand in front: the signature is at 0, 512, 1024, 2048 …
    if not any(head.startswith(_HDF5, offset) for offset in (0, 512, 1024, 2048)):
        raise RefusedError("is no HDF5 file")


def _image(path: Path, head: bytes) -> None:
    if not head.startswith(_IMAGES):
        raise RefusedError("is no image of the kind that its name says")


def _onnx(path: Path, head: bytes) -> None:
    fields = _protobuf_fields(path)
    if _ONNX_GRAPH not in fields or not fields <= _ONNX_FIELDS:
        raise RefusedError("is no ONNX model")


def _protobuf(path: Path, head: bytes) -> None:
    _protobuf_fields(path)


def _protobuf_fields(path: Path) -> set[int]:
    """Returns the numbers of a message's own fields, which fill the file exactly.

    Source: the wire format of protocol buffers (varint, 64 bits, length and bytes, 32 bits).
    """
    size = path.stat().st_size
    fields: set[int] = set()
    with open(path, "rb") as file:
        while file.tell() < size:
            field, wire = divmod(_varint(file), 8)
            if wire not in (0, 1, 2, 5) or not field:
                raise RefusedError("is no protocol buffer, or is damaged")
            length = _varint(file) if wire in (0, 2) else {1: 8, 5: 4}[wire]
            if wire != 0:
                file.seek(length, 1)
            fields.add(field)
        if file.tell() != size or not fields:
            raise RefusedError("is empty, or cut off")
    return fields


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise RefusedError("is cut off")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise RefusedError("is no protocol buffer, or is damaged")


_CHECKS: dict[str, Callable[[Path, bytes], None]] = {
    "safetensors": _safetensors,
    "json": _json,
    "text": _text,
    "gguf": _gguf,
    "hdf5": _hdf5,
    "image": _image,
    "onnx": _onnx,
    "protobuf": _protobuf,
}
