"""The header of a safetensors file: names, shapes and number formats of its tensors, never the weights."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element. Source: `Dtype::bitsize` of the format's own implementation."""
MAX_HEADER = 100_000_000
"""Bytes; the format's own implementation refuses longer headers."""


class BrokenHeaderError(Exception):
    """A file is no safetensors file, or not a whole one; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry; `dtype` is the format's name for it, as in `BF16`; `begin` and `end` count from the header's end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(path: Path, *, max_header: int = MAX_HEADER) -> list[Tensor]:
    """Returns the tensors in the order of their bytes; raises `BrokenHeaderError` unless they fill the file exactly.

    Source: the format's own description (8 bytes of length, little endian; JSON; the data without gaps).
    """
    with open(path, "rb", buffering=0) as file:
        data = os.fstat(file.fileno()).st_size - 8
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= data:
            raise BrokenHeaderError("is no safetensors file, or is cut off")
        if length > max_header:
            raise BrokenHeaderError(f"has a header of {length} bytes; at most {max_header} are read")
        text = file.read(length)
    try:
        entries = orjson.loads(text)
        tensors = [_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BrokenHeaderError(f"has a header that cannot be read: {exc}") from exc
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_layout(tensors, data - length)
    return tensors


def _tensor(name: str, entry: Mapping[str, Any]) -> Tensor:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name!r} has a shape or an offset that is no count")
    tensor = Tensor(name, str(dtype), tuple(shape), begin, end)
    bits = BITS.get(tensor.dtype)  # None for a number format that is newer than this list
    if bits is not None and tensor.elements * bits != 8 * (end - begin):
        raise ValueError(f"{name!r} is not as long as its shape")
    return tensor


def _check_layout(tensors: list[Tensor], data: int) -> None:
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            raise BrokenHeaderError(f"has a gap or an overlap before the tensor {tensor.name!r}")
        position = tensor.end
    if position != data:
        what = "is cut off" if position > data else "goes on after its last tensor"
        raise BrokenHeaderError(f"{what}: the header counts {position} bytes of data, the file has {data}")
