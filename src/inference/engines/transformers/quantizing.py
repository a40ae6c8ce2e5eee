"""Loading a model in int8 or nf4: bitsandbytes does it, through the library's own door for quantizers."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_bnb_8bit import Bnb8BitHfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from src.core.errors import InvalidInputError, ModelLoadError
from src.inference.engines.transformers.placement import compute_dtype, dtype_name, pick_dtype
from src.inference.quantization import QUANTIZED, QuantizedFormat, is_quantized, quantized_before
from src.inference.weight_files import read_json
from src.inference.workers.failures import is_out_of_memory

_OF_BITSANDBYTES = (*QUANTIZED, "fp4")
INSTEAD = "take float32, bfloat16 or float16"


@register_quantization_config("layers_int8")
class Int8Config(BitsAndBytesConfig):  # type: ignore[misc]
    """int8 of the layers that `src.inference.quantization` names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "load_in_8bit": True})
        self.quant_method = "layers_int8"


@register_quantization_config("layers_nf4")
class Nf4Config(BitsAndBytesConfig):  # type: ignore[misc]
    """nf4 of the layers that `src.inference.quantization` names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})
        self.quant_method = "layers_nf4"


@register_quantizer("layers_int8")
class Int8Quantizer(Bnb8BitHfQuantizer):  # type: ignore[misc]
    """Replaces the layers of a model that has no weights yet."""

    def _process_model_before_weight_loading(self, model: Any, device_map: Any, **kwargs: Any) -> None:
        replace_layers(model, "int8", self.quantization_config)


@register_quantizer("layers_nf4")
class Nf4Quantizer(Bnb4BitHfQuantizer):  # type: ignore[misc]
    """Replaces the layers of a model that has no weights yet."""

    def _process_model_before_weight_loading(self, model: Any, device_map: Any, **kwargs: Any) -> None:
        replace_layers(model, "nf4", self.quantization_config)
        _layers().set_blocks(model)


def replace_layers(model: Any, quantized: QuantizedFormat, config: BitsAndBytesConfig) -> None:
    """Puts bitsandbytes' layers into a model; raises `InvalidInputError` where none can be."""
    linear = {name: module for name, module in model.named_modules() if _is_linear(module)}
    chosen = set(_chosen(model, linear, quantized))
    if not chosen:
        raise InvalidInputError(
            f"torch_dtype '{quantized}' quantizes linear layers, and {type(model).__name__} has none that it could: "
            f"{INSTEAD}"
        )
    # It takes patterns, and the end of a name for one: `proj` would stand for every `q_proj`.
    others = [f"{re.escape(name)}$" for name in linear if name not in chosen]
    replace = _layers().integration.replace_with_bnb_linear
    replace(model, modules_to_not_convert=others, quantization_config=config)


def _chosen(model: Any, linear: dict[str, Any], quantized: QuantizedFormat) -> Iterator[str]:
    kept = [*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())]
    tied = {key.removesuffix(".weight") for pair in model.all_tied_weights_keys.items() for key in pair}
    for name, module in linear.items():
        if name in tied or not should_convert_module(name, kept):
            continue
        if is_quantized(f"{name}.weight", _shape(module), quantized, model.config.model_type):
            yield name


def _is_linear(module: Any) -> bool:
    return type(module) is torch.nn.Linear or isinstance(module, Conv1D)


def _shape(module: Any) -> tuple[int, int]:
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def load_arguments(path: Path, dtype: str, device: str) -> dict[str, Any]:
    """Returns what `from_pretrained` takes for a number format: `dtype`, and of a quantized one also how and where.

    Raises `InvalidInputError` for what cannot be on this device or with this checkpoint, `ModelLoadError` for a
    checkpoint that is quantized in a way which the library does not know.
    """
    before = quantized_before(read_json(path / "config.json"))
    if before:
        _check_known(before)
    if before in _OF_BITSANDBYTES or dtype in QUANTIZED:
        _layers()
    if dtype not in QUANTIZED:
        found = {"dtype": pick_dtype(dtype)}
        return {**found, "device_map": {"": device}} if before else found
    if before not in (None, dtype):
        raise InvalidInputError(
            f"torch_dtype '{dtype}' is not to be had: the checkpoint is quantized already ({before}); {INSTEAD}, "
            "which is then the format of all that is not quantized"
        )
    if device == "mps":
        raise InvalidInputError(f"torch_dtype '{dtype}' is not to be had on device 'mps': {INSTEAD}, or device 'cpu'")
    computing = compute_dtype(device)
    found = {"dtype": computing, "device_map": {"": device}}
    if before is None:
        kind = Int8Config() if dtype == "int8" else Nf4Config(bnb_4bit_compute_dtype=computing)
        found["quantization_config"] = kind
    return found


def settled(model: Any, device: str) -> Any:
    """Returns a loaded model on its device, with layers that run every input rightly."""
    if getattr(model, "hf_quantizer", None) is None:
        return model.to(device)
    if format_of(model) in _OF_BITSANDBYTES:
        _layers().fit(model, device)
    return model


def format_of(model: Any) -> str:
    """Returns the number format that a model's weights really are in, as answers tell it."""
    kinds = {type(parameter).__name__: parameter for parameter in model.parameters()}
    if "Params4bit" in kinds:
        return str(kinds["Params4bit"].quant_type)
    if "Int8Params" in kinds:
        return "int8"
    method = getattr(model, "quantization_method", None) if getattr(model, "is_quantized", False) else None
    return str(getattr(method, "value", method)) if method else dtype_name(model.dtype)


def scales(model: Any) -> Iterator[torch.Tensor]:
    """Yields what quantized layers hold besides their parameters."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        state = getattr(weight, "quant_state", None)
        holders = (state, getattr(state, "state2", None), weight, getattr(module, "state", None))
        for holder in holders:
            for name in ("absmax", "code", "SCB"):
                if isinstance(tensor := getattr(holder, name, None), torch.Tensor):
                    yield tensor


def _check_known(method: str) -> None:
    # The library would pass such a checkpoint over with a warning, and make random weights in place of it.
    if method not in _OF_BITSANDBYTES and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise ModelLoadError(
            f"the checkpoint is quantized by '{method}', which transformers does not know: "
            "take the checkpoint that it was made from"
        )


def _layers() -> Any:
    try:
        return importlib.import_module("src.inference.engines.transformers.bitsandbytes_layers")
    except Exception as exc:
        # Whatever is missing or does not fit: a package, a native library, a version of torch.
        raise InvalidInputError(
            f"int8 and nf4 need the package bitsandbytes, which cannot be imported here ({exc}): {INSTEAD}"
        ) from exc


def try_out(runner: Any, dtype: str) -> None:
    """Runs a model once in the number format that was asked for.

    Raises `InvalidInputError` where its architecture does not run in it.
    """
    try:
        runner.warm_up()
    except Exception as exc:
        if is_out_of_memory(exc):
            raise
        raise InvalidInputError(
            f"model '{runner.name}' does not run in torch_dtype '{dtype}' on {runner.device} ({exc}): take float32"
        ) from exc
