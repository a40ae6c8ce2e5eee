"""Where a model goes and in which number format."""

from typing import Any

import torch

from src.core.errors import InvalidInputError
from src.inference.quantization import QUANTIZED, compute_format

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pick_device(wanted: str) -> str:
    """Returns the device to load onto; raises `InvalidInputError` where it does not exist."""
    present = devices()
    if wanted == "auto":
        return present[0]
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in present:
        raise InvalidInputError(
            f"device '{wanted}' does not exist here (there are: {', '.join(present)}); leave out 'device'",
            details={"devices": present},
        )
    return name


def devices() -> list[str]:
    """Returns the devices of this machine, the preferred one first."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def pick_dtype(wanted: str) -> Any:
    """Returns what `from_pretrained(dtype=)` takes; "auto" keeps the checkpoint's own."""
    if wanted == "auto":
        return "auto"
    if wanted not in DTYPES:
        names = ", ".join([*DTYPES, *QUANTIZED])
        raise InvalidInputError(f"torch_dtype '{wanted}' is no number format: take one of auto, {names}")
    return DTYPES[wanted]


def compute_dtype(device: str) -> torch.dtype:
    """Returns what a quantized model computes in on a device, see `compute_format`."""
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return DTYPES[compute_format(device)]


def dtype_name(dtype: torch.dtype) -> str:
    """Returns `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
