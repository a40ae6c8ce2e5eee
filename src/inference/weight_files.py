"""What a model folder holds by its files' headers: names, shapes and dtypes of tensors, never the weights."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
FLOAT8 = {"F8_E4M3": 1, "F8_E5M2": 1}
_WHOLE = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_SIZES = {**FLOATS, **FLOAT8, **_WHOLE}

_MAX_HEADER = 100_000_000  # safetensors refuses longer ones
_MAX_DIMENSIONS = 64
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_FILE_KINDS = (("pytorch_model*.bin",), ("*.gguf",), ("*.onnx", "*.onnx_data*", "*.onnx.data"), _PICKLES)


class UnreadableError(Exception):
    """A file is no safetensors file, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header; `dtype` is the format's name for it, as in `BF16`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored_bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that a loader would take. `whole_bytes`: what the index says of all, also of missing ones."""

    paths: list[Path]
    is_safetensors: bool
    whole_bytes: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def keeps_its_format(self) -> bool:
        """Whether the weights stay in memory as they are stored (GGUF, ONNX)."""
        return any(path.suffix == ".gguf" or ".onnx" in path.name for path in self.paths)

    def stored_bytes(self) -> int:
        """Returns the length of the files that are there."""
        return sum(path.stat().st_size for path in self.paths)


def weight_files(path: Path) -> WeightFiles:
    """Returns the weight files of a folder in a loader's order of preference; of a file, that file."""
    if path.is_file():
        return WeightFiles([path], path.suffix == ".safetensors")
    if (path / "model.safetensors").is_file():
        return WeightFiles([path / "model.safetensors"], True)
    index = read_json(path / "model.safetensors.index.json", most=_MAX_HEADER)
    sharded = _sharded(path, index)
    if sharded is not None and sharded.paths:
        return sharded
    loose = _matching(path, ("*.safetensors",))
    if loose:
        return WeightFiles(loose, True)
    other = next((files for kind in _FILE_KINDS if (files := _matching(path, kind))), [])
    return WeightFiles(other, False, missing=sharded.missing if sharded else [])


def read_header(file: Path) -> list[Tensor]:
    """Returns what a safetensors file holds; raises `UnreadableError`.

    Source: the format's own description (8 bytes of length, little endian; JSON; the data).
    """
    try:
        with open(file, "rb", buffering=0) as stream:
            data = os.fstat(stream.fileno()).st_size - 8
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(data, _MAX_HEADER):
                raise UnreadableError(f"{file.name} is no safetensors file, or is cut off")
            entries = orjson.loads(stream.read(length))
        return [_tensor(name, entry, data - length) for name, entry in entries.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UnreadableError(f"the header of {file.name} cannot be read: {exc}") from exc


def read_json(file: Path, *, most: int = 16 * 2**20) -> Mapping[str, Any]:
    """Returns the mapping in a file of at most `most` bytes; an empty one for anything else."""
    try:
        if not file.is_file() or file.stat().st_size > most:
            return {}
        value = orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _sharded(path: Path, index: Mapping[str, Any]) -> WeightFiles | None:
    shards, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(shards, dict):
        return None
    # A name with a folder in it would lead out of the model's own.
    names = sorted({name for name in shards.values() if isinstance(name, str) and name == os.path.basename(name)})
    whole = metadata.get("total_size") if isinstance(metadata, dict) else None
    return WeightFiles(
        [path / name for name in names if (path / name).is_file()],
        True,
        int(whole) if isinstance(whole, int | float) and 0 < whole < 2**60 else 0,
        [name for name in names if not (path / name).is_file()],
    )


def _matching(path: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def _tensor(name: str, entry: Mapping[str, Any], data: int) -> Tensor:
    dtype, shape = entry["dtype"], entry["shape"]
    begin, end = entry["data_offsets"]
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or an offset that is no count")
    tensor = Tensor(name, str(dtype), tuple(shape), end - begin)
    size = _SIZES.get(tensor.dtype)
    if not begin <= end <= data or (size is not None and tensor.elements * size != end - begin):
        raise ValueError(f"{name} lies outside of the file, or is not as long as its shape")
    return tensor
