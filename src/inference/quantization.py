"""What int8 and nf4 make of a model: which of its layers, how many bytes they take, what the rest computes in.

Arithmetic on names and shapes alone, so that the estimate before a load and the load itself agree; nothing
heavy is imported.

A layer is quantized where it stands inside a numbered block (`model.layers.3.mlp.up_proj`). Embeddings, heads
and what joins two towers stand outside of them: they are small, or decide the answer, and stay as they are.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

QuantizedFormat = Literal["int8", "nf4"]
QUANTIZED: tuple[QuantizedFormat, ...] = ("int8", "nf4")

LOADING_BYTES = 16
"""What quantizing a layer holds at once, in bytes for each of its weights (measured: int8 11, nf4 15)."""

_INSIDE_BLOCK = re.compile(r"(?:^|\.)\d+\.(?!weight$)")
_OTHER_MATRIX = re.compile(r"embed|relative_attention_bias|(?:^|\.)experts\.")
"""Matrices inside blocks that are no linear layers, or that become one tensor of three dimensions in memory."""
_READ_ELSEWHERE = re.compile(r"\.(?:wo|dt_proj|weights_proj|kernel)\.weight$|\.router\.classifier\.weight$")
"""Layers whose weights the modelling code reads itself: T5's and Mamba's, for one, which it would take as numbers."""
_READ_BY_KIND: Mapping[str, re.Pattern[str]] = {"wavlm": re.compile(r"\.attention\.\w+\.weight$")}
_BLOCKS = (64, 32)
_CPUINFO = Path("/proc/cpuinfo")


def is_quantized(name: str, shape: tuple[int, ...], quantized: QuantizedFormat, kind: str | None = None) -> bool:
    """Whether the weight of this name and shape (out x in) is kept in `quantized`; `kind`: the `model_type`."""
    if len(shape) != 2 or not name.endswith(".weight") or not _INSIDE_BLOCK.search(name):
        return False
    own = _READ_BY_KIND.get(kind or "")
    if _OTHER_MATRIX.search(name) or _READ_ELSEWHERE.search(name) or (own and own.search(name)):
        return False
    return quantized == "int8" or block_of(shape[1]) is not None


def block_of(columns: int) -> int | None:
    """Returns how many weights of a row of that many share a scale in nf4; None where rows are not whole blocks.

    The CPU kernels of bitsandbytes read the wrong scales where a block goes on in the next row (0.50.2).
    """
    return next((block for block in _BLOCKS if columns % block == 0), None)


def quantized_bytes(rows: int, columns: int, quantized: QuantizedFormat) -> int:
    """Returns what a layer's weight takes: int8 with a float32 scale a row, nf4 two a byte with one a block.

    Source: bitsandbytes, `int8_vectorwise_quant` and `quantize_4bit`.
    """
    elements = rows * columns
    if quantized == "int8":
        return elements + 4 * rows
    return -(-elements // 2) + 4 * -(-elements // (block_of(columns) or _BLOCKS[0]))


def compute_format(device: str) -> Literal["bfloat16", "float32"]:
    """Returns the number format of what is not quantized, activations too: the faster one of the device.

    A CPU that multiplies bfloat16 itself (AMX, AVX512_BF16) reads a prompt three times as fast in it.
    """
    return "bfloat16" if device != "cpu" or _multiplies_bfloat16() else "float32"


def quantized_before(config: Mapping[str, Any]) -> str | None:
    """Returns by what a checkpoint is quantized already: `int8`, `nf4`, `gptq` …; None: it is not."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    found = next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)
    if not isinstance(found, Mapping):
        return None
    if found.get("load_in_8bit"):
        return "int8"
    if found.get("load_in_4bit"):
        return str(found.get("bnb_4bit_quant_type", "fp4"))
    return str(found.get("quant_method", "unknown"))


@cache
def _multiplies_bfloat16() -> bool:
    try:
        words = set(_CPUINFO.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False  # not Linux: what every CPU does
    return not words.isdisjoint({"amx_bf16", "avx512_bf16", "bf16"})
