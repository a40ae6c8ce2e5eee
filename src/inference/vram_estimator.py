"""Estimates what a model takes in memory before it is loaded, from file headers and `config.json` alone.

No weight is read and neither torch nor transformers is imported: this runs in the service's own process,
before a worker is asked to load anything. Formulas, in bytes:

- **weights**: each tensor's elements times the size of the dtype it is loaded in; what the loaded model
  shares between two names (tied embeddings) once. In int8 and nf4 the layers that `quantization` names, the
  rest in what the device computes in.
- **KV cache**: layers x (key width + value width) x dtype size x tokens x batch (`model_config.kv_elements`).
- **overhead**: `runtime_bytes` + the largest of weights / 20 (allocator slack, workspaces), what quantizing the
  largest layer holds, and
  tokens x batch x (8 x hidden + 4 x intermediate) x dtype size (what a forward pass holds at once)
  + batch x vocabulary x 24 (float32 logits and their copies while sampling)
  + the KV cache once more (it grows by copying, and the holes stay with the process).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.core.settings_sections import DTYPE_NAMES
from src.inference.model_config import (
    Config,
    context_length,
    embedding_parameters,
    forward_width,
    generates,
    is_tied,
    kv_elements,
    number,
    parameter_count,
    text_part,
)
from src.inference.quantization import (
    LOADING_BYTES,
    QUANTIZED,
    QuantizedFormat,
    compute_format,
    is_quantized,
    quantized_before,
    quantized_bytes,
)
from src.inference.weight_files import (
    FLOAT8,
    FLOATS,
    Tensor,
    UnreadableError,
    WeightFiles,
    read_header,
    read_json,
    weight_files,
)

Method = Literal["safetensors headers", "config", "file sizes", "unknown"]

RUNTIME_BYTES = 512 * 2**20
"""What a fresh worker takes without a model: 450 MiB measured with torch and transformers imported, and slack."""
FORKED_RUNTIME_BYTES = 288 * 2**20
"""The same for one forked from the preloader, as PSS: 262 MB measured for the only one, less for each of several."""
DEFAULT_CONTEXT_TOKENS = 2048
"""Tokens of KV cache that room is made for unless the caller says otherwise; a shorter context bounds it."""

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_INPUT_EMBEDDINGS = (
    "embed_tokens.weight", "wte.weight", "shared.weight", "word_embeddings.weight", "embed_in.weight"
)  # fmt: skip
_OUTPUT_EMBEDDINGS = (
    "lm_head.weight", "embed_out.weight", "proj_out.weight", "output_projection.weight", "predictions.decoder.weight"
)  # fmt: skip
_CODER_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Kept in float32 where float16 is asked for (`_keep_in_fp32_modules` of the modelling code), if it is much.
_KEPT_FLOAT32 = {
    **dict.fromkeys(("t5", "mt5", "umt5", "udop", "pop2piano"), ("wo",)),
    "blip-2": ("query_tokens", "qformer"),
}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a loaded model takes, in bytes, and how that is known.

    `parameter_count` is None where it is not known; `warnings` say what was missing or unreadable.
    """

    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    method: Method
    parameter_count: int | None
    warnings: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """The whole: weights, KV cache and overhead."""
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True)
class _Weights:
    """`dtype` is the safetensors name of what the model computes in; None: not known.

    `loading_bytes`: what loading holds at once besides.
    """

    bytes: int
    parameters: int | None
    method: Method
    dtype: str | None
    loading_bytes: int = 0
    tensors: tuple[Tensor, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wish:
    """How the weights are to be loaded; `dtype` by its safetensors name, None: as the model says itself."""

    dtype: str | None
    quantized: QuantizedFormat | None


def estimate(
    path: Path,
    *,
    dtype: str | None,
    context_tokens: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    runtime_bytes: int = RUNTIME_BYTES,
) -> MemoryEstimate:
    """Returns what the model in a folder (or a single file) takes once loaded in `dtype`.

    `dtype`: `float32`, `float16`, `bfloat16`, `int8`, `nf4` or their other names; None and `auto` keep the
    checkpoint's. Names that no loader knows change nothing here: the loader refuses them. `context_tokens` and
    `batch` size the KV cache; what is not quantized depends on the `device`; `runtime_bytes` is what a worker
    takes without a model. Never raises on what the files hold.
    """
    config = read_json((path.parent if path.is_file() else path) / "config.json")
    weights = _weights(path, config, _wish(DTYPE_NAMES.get(dtype or "", dtype), config, device))
    size = FLOATS.get(weights.dtype or "", 4)
    tokens = context_tokens or min(DEFAULT_CONTEXT_TOKENS, context_length(config) or DEFAULT_CONTEXT_TOKENS)
    cache = _kv_elements(config, weights, tokens) * size * batch
    forward = forward_width(config) * tokens * batch * size
    sampling = number(text_part(config), "vocab_size") * 24 * batch if cache else 0
    return MemoryEstimate(
        weights_bytes=weights.bytes,
        kv_cache_bytes=cache,
        overhead_bytes=runtime_bytes + max(weights.bytes // 20, weights.loading_bytes, forward + sampling + cache),
        method=weights.method,
        parameter_count=weights.parameters,
        warnings=weights.warnings,
    )


def _wish(wanted: str | None, config: Config, device: str) -> _Wish:
    quantized = next((name for name in QUANTIZED if name == wanted), None)
    if quantized is None:
        return _Wish(_DTYPES.get(wanted or ""), None)
    # One that is quantized already is loaded as it is, or refused.
    return _Wish(_DTYPES[compute_format(device)], None if quantized_before(config) else quantized)


def _weights(path: Path, config: Config, wish: _Wish) -> _Weights:
    files = weight_files(path)
    warnings: tuple[str, ...] = ()
    if files.missing:
        warnings = (f"{len(files.missing)} weight files are missing, the first is {files.missing[0]}",)
    if files.is_safetensors:
        try:
            tensors = [tensor for file in files.paths for tensor in read_header(file)]
            return _from_headers(tensors, config, wish, files, warnings)
        except UnreadableError as exc:
            warnings = (*warnings, str(exc))
    if files.paths:
        return _from_file_sizes(files, config, wish, warnings)
    return _from_config(config, wish, warnings)


def _from_headers(
    tensors: list[Tensor], config: Config, wish: _Wish, files: WeightFiles, warnings: tuple[str, ...]
) -> _Weights:
    by_name = sorted(tensors, key=lambda tensor: tensor.name)
    dtype = wish.dtype or _declared_dtype(config)
    # transformers takes the first float by name where nobody says
    dtype = dtype or next((tensor.dtype for tensor in by_name if tensor.dtype in FLOATS), None)
    # A checkpoint quantized beforehand stays as it is, but for the floats beside it.
    convertible = FLOATS if config.get("quantization_config") else {**FLOATS, **FLOAT8}
    kept = _kept_in_float32(config)
    loaded = _without_copies(by_name, config)
    packed = {tensor.name: size for tensor in loaded if (size := _packed_bytes(tensor, wish.quantized, kept, config))}
    floats = kept if dtype == "F16" else ()
    total = sum(packed.values()) + sum(
        _loaded_bytes(tensor, dtype, floats)
        if dtype is not None and tensor.dtype in convertible
        else tensor.stored_bytes
        for tensor in loaded
        if tensor.name not in packed
    )
    largest = max((tensor.elements for tensor in loaded if tensor.name in packed), default=0)
    parameters = sum(tensor.elements for tensor in loaded if tensor.dtype in convertible)
    if files.missing:
        share = _whole_over_present(files, sum(tensor.stored_bytes for tensor in tensors))
        total, parameters = int(total * share), int(parameters * share)
    return _Weights(total, parameters, "safetensors headers", dtype, largest * LOADING_BYTES, tuple(loaded), warnings)


def _from_file_sizes(files: WeightFiles, config: Config, wish: _Wish, warnings: tuple[str, ...]) -> _Weights:
    declared = _declared_dtype(config)
    total = files.stored_bytes()
    if wish.dtype and declared and not files.keeps_its_format:
        total = total * FLOATS[wish.dtype] // FLOATS[declared]
    return _Weights(total, parameter_count(config), "file sizes", wish.dtype or declared, warnings=warnings)


def _from_config(config: Config, wish: _Wish, warnings: tuple[str, ...]) -> _Weights:
    dtype = wish.dtype or _declared_dtype(config)
    parameters = parameter_count(config)
    if parameters is None:
        return _Weights(0, None, "unknown", dtype, warnings=warnings)
    plain = min(embedding_parameters(config), parameters) if wish.quantized else parameters
    dtype = dtype or "F32"
    total = plain * FLOATS[dtype]
    if wish.quantized:
        total += quantized_bytes(1, parameters - plain, wish.quantized)  # its rows are not known
    return _Weights(total, parameters, "config", dtype, warnings=warnings)


def _packed_bytes(tensor: Tensor, quantized: QuantizedFormat | None, kept: tuple[str, ...], config: Config) -> int:
    """Returns what a tensor takes in a quantized format; 0 where it is not quantized."""
    if quantized is None or tensor.dtype not in {**FLOATS, **FLOAT8} or _is_kept(tensor, kept):
        return 0
    if not is_quantized(tensor.name, tensor.shape, quantized, str(config.get("model_type"))):
        return 0
    return quantized_bytes(tensor.shape[0], tensor.shape[1], quantized)


def _loaded_bytes(tensor: Tensor, dtype: str, kept: tuple[str, ...]) -> int:
    return tensor.elements * FLOATS["F32" if _is_kept(tensor, kept) else dtype]


def _is_kept(tensor: Tensor, kept: tuple[str, ...]) -> bool:
    return any(name in kept for name in tensor.name.split("."))


def _whole_over_present(files: WeightFiles, present: int) -> float:
    """Returns the factor from the shards that are there to all, by the index or else by their number."""
    if files.whole_bytes and present:
        return max(files.whole_bytes / present, 1.0)
    return (len(files.paths) + len(files.missing)) / len(files.paths)


def _without_copies(tensors: list[Tensor], config: Config) -> list[Tensor]:
    """Leaves out tensors that the loaded model shares with another one."""
    inputs = {tensor.shape for tensor in tensors if tensor.name.endswith(_INPUT_EMBEDDINGS)}
    counted = {tensor.shape for tensor in tensors if f".{tensor.name}".endswith(".shared.weight")}
    tied = is_tied(config)
    left = []
    for tensor in tensors:
        if tensor.name.endswith(_CODER_EMBEDDINGS):
            copy = tensor.shape in counted
            if tied and config.get("is_encoder_decoder"):
                counted.add(tensor.shape)
        else:
            copy = tied and tensor.name.endswith(_OUTPUT_EMBEDDINGS) and tensor.shape in inputs
        if not copy:
            left.append(tensor)
    return left


def _kept_in_float32(config: Config) -> tuple[str, ...]:
    kinds = {str(part.get("model_type")) for part in (config, text_part(config))}
    return tuple(name for kind in kinds for name in _KEPT_FLOAT32.get(kind, ()))


def _declared_dtype(config: Config) -> str | None:
    for name in ("dtype", "torch_dtype"):
        if isinstance(config.get(name), str):
            return _DTYPES.get(config[name].removeprefix("torch."))
    return None


def _kv_elements(config: Config, weights: _Weights, tokens: int) -> int:
    if not generates(config):
        return 0
    told = kv_elements(config, tokens)
    return _projected_width(weights.tensors) * tokens if told is None else told


def _projected_width(tensors: tuple[Tensor, ...]) -> int:
    """Returns the KV numbers per token by the weights' shapes, for a config that leaves out its defaults."""
    others = ("vision", "visual", "image", "audio", "encoder")
    names = ("k_proj.weight", "v_proj.weight")
    return sum(
        tensor.shape[0]
        for tensor in tensors
        if tensor.name.endswith(names) and tensor.shape and not any(word in tensor.name for word in others)
    )
