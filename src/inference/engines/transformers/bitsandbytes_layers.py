"""The layers of bitsandbytes, imported without what it does besides, and made to fit every input and every CPU.

Import this module only where a model is quantized: the import takes a quarter of a second.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from src.inference.quantization import block_of

_PACKED_ROWS = 32


@contextmanager
def _nothing_besides() -> Iterator[None]:
    """Keeps an import from fetching native code off a hub (`kernels`), and from setting up a compiler.

    `torch.compile` costs 2.7 s and 50 MB a process, for functions that only rows of an odd length use.
    """
    compiled, kernels = torch.compile, sys.modules.get("kernels")
    torch.compile = _uncompiled
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiled
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels


def _uncompiled(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return function or _uncompiled


# One tells at each layer of each request that activations are quantized from float16, the other that `kernels` lacks.
for _name in ("autograd._functions", "backends.cpu.ops"):
    logging.getLogger(f"bitsandbytes.{_name}").setLevel(logging.ERROR)

with _nothing_besides():
    library: Any = importlib.import_module("bitsandbytes")
    integration: Any = importlib.import_module("transformers.integrations.bitsandbytes")


class Int8Layer(library.nn.Linear8bitLt):  # type: ignore[misc]
    """An int8 layer for inputs of any number of dimensions; the library's takes two or three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x W' + b; `x`: … x columns."""
        rows: torch.Tensor = super().forward(x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], rows.shape[-1])


class Nf4Layer(library.nn.Linear4bit):  # type: ignore[misc]
    """An nf4 layer for inputs in any order in memory; a kernel of the library's reads them as if rows were whole."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x W' + b; `x`: … x columns."""
        product: torch.Tensor = super().forward(x.contiguous())
        return product


def set_blocks(model: Any) -> None:
    """Has each nf4 layer of a model that has no weights yet take blocks of which its rows hold whole ones."""
    for module in model.modules():
        if isinstance(module, library.nn.Linear4bit):
            module.weight.blocksize = block_of(module.in_features)


def fit(model: Any, device: str) -> None:
    """Has the quantized layers of a loaded model run every input rightly on its device.

    Raises `ValueError` for a checkpoint whose nf4 blocks the CPU would read wrongly.
    """
    for name, module in model.named_modules():
        if type(module) is library.nn.Linear8bitLt:
            module.__class__ = Int8Layer
        elif type(module) is library.nn.Linear4bit:
            module.__class__ = Nf4Layer
            if device == "cpu":
                _fit_to_cpu(name, module)


def _fit_to_cpu(name: str, module: Any) -> None:
    block = module.weight.quant_state.blocksize
    if module.in_features % block:
        raise ValueError(f"layer {name} has rows of {module.in_features} weights, which are no whole blocks of {block}")
    # A kernel for AVX512_BF16 wants the rows in groups.
    module.support_avx512bf16_for_cpu = module.support_avx512bf16_for_cpu and module.out_features % _PACKED_ROWS == 0
