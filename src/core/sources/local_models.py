"""What is staged on this machine, told for people and for programs."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from src.core.sources.human import human_count, human_size, human_time
from src.core.sources.safetensors_header import BITS, BrokenHeaderError, Tensor, read_header
from src.core.sources.small_json import read_json
from src.core.sources.staging import Staged
from src.core.sources.task_guess import architecture_of, guess_task
from src.core.stores.source_tree import SOURCE_RECORD

JsonObject = dict[str, Any]

_MAX_HEADERS = 8_000_000  # bytes of headers read for one model; larger ones take too long to parse
_BESIDE_QUANTIZED = re.compile(r"\.(qzeros|g_idx|scales?|absmax|quant_map|nested_\w+|quant_state\..+)$|_scales$")


def describe(staged: Staged, now: float | None = None) -> JsonObject:
    """Returns a staged folder as a row of a list; `now` in seconds since 1970.

    `name, size, modified` as people read them, `size_bytes, modified_at` (seconds since 1970), `files` (`path,
    size_bytes`, and `digest` where its source gave one), `source, source_name, revision, left_out`; where they can
    be told, else None: `architecture`, `task` (a guess), `parameters` (`"1.7B"`) and `parameter_count`.
    """
    found = sorted(_files(staged.path))
    record = staged.record
    digests = record.files if record else {}
    size = sum(status.st_size for _, status in found)
    newest = max((status.st_mtime for _, status in found), default=0.0)
    modified_at = (record.finished_at if record else 0.0) or newest
    count = count_parameters(staged.path)
    return {
        "name": staged.name,
        "size": human_size(size),
        "modified": human_time(modified_at, time.time() if now is None else now),
        "size_bytes": size,
        "modified_at": modified_at,
        "files": [_file(path, status.st_size, digests) for path, status in found],
        "source": record.source if record else "local",
        "source_name": record.name if record else None,
        "revision": record.revision if record else None,
        "left_out": record.left_out if record else [],
        "architecture": architecture_of(staged.path),
        "task": guess_task(staged.path),
        "parameters": human_count(count) if count else None,
        "parameter_count": count,
    }


def count_parameters(folder: Path) -> int | None:
    """Returns the parameters in the safetensors files below a folder, by their headers; None where there are none.

    Weights packed into fewer bits count as what they stand for. None also where a header is broken or too large.
    """
    left, total = _MAX_HEADERS, 0
    bits = _packed_bits(folder)
    for path in _weights(folder):
        try:
            status = path.stat()
            size, count = _counted(path, status.st_ino, status.st_size, status.st_mtime_ns, bits)
        except (OSError, BrokenHeaderError):
            return None
        left, total = left - size, total + count
        if left < 0:
            return None
    return total or None


def _weights(folder: Path) -> list[Path]:
    """Returns the weight files that a loader takes; repositories may hold the same weights under other names too."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    shards = read_json(folder / "model.safetensors.index.json").get("weight_map")
    if isinstance(shards, Mapping):
        return [folder / os.path.basename(str(name)) for name in sorted(set(map(str, shards.values())))]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.rglob("*.safetensors"))


@lru_cache(maxsize=4096)
def _counted(path: Path, inode: int, size: int, mtime_ns: int, bits: int | None) -> tuple[int, int]:
    tensors = read_header(path, max_header=_MAX_HEADERS)
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    return header, sum(_elements(tensor, bits) for tensor in tensors)


def _elements(tensor: Tensor, bits: int | None) -> int:
    if bits is None:
        return tensor.elements
    if _BESIDE_QUANTIZED.search(tensor.name):
        return 0
    is_packed = tensor.dtype in ("I32", "U32", "U8", "I8") and BITS[tensor.dtype] > bits
    return tensor.elements * BITS[tensor.dtype] // bits if is_packed else tensor.elements


def _packed_bits(folder: Path) -> int | None:
    """Returns the bits of one weight where several are packed into a whole number (GPTQ, AWQ, bitsandbytes, MXFP4)."""
    quantization = read_json(folder / "config.json").get("quantization_config")
    if not isinstance(quantization, Mapping):
        return None
    if quantization.get("load_in_4bit") or quantization.get("quant_method") == "mxfp4":
        return 4
    bits = quantization.get("bits")
    return bits if isinstance(bits, int) and bits in (2, 3, 4, 8) else None


def _file(path: str, size: int, digests: Mapping[str, str]) -> JsonObject:
    digest = digests.get(path)
    return {"path": path, "size_bytes": size, **({"digest": digest} if digest else {})}


def _files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in (".git", ".cache")]
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if relative != SOURCE_RECORD:
                try:
                    yield relative, path.stat()
                except OSError:
                    continue  # it went away meanwhile, or leads nowhere
