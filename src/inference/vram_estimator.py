"""Estimates what a model takes in memory before it is loaded, from file headers and `config.json` alone.

No weight is read and neither torch nor transformers is imported: this runs in the service's own process,
before a worker is asked to load anything. Formulas:

- **weights**: each tensor's elements times the size of the dtype it is loaded in; what the loaded model
  shares between two names (tied embeddings) once.
- **KV cache**: layers x (key width + value width) x dtype size x tokens x batch; a sliding layer keeps
  `window - 1` tokens, an encoder-decoder model has a second cache over the encoder's tokens. Source:
  transformers/cache_utils.py.
- **overhead**: `runtime_bytes` + the larger of weights / 20 (allocator slack, workspaces) and
  tokens x batch x (8 x hidden + 4 x intermediate) x dtype size (what a forward pass holds at once)
  + batch x vocabulary x 24 (float32 logits and their copies while sampling)
  + the KV cache once more (it grows by copying, and the holes stay with the process).
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from src.core.config import DTYPE_NAMES

Method = Literal["safetensors headers", "config", "file sizes", "unknown"]

RUNTIME_BYTES = 512 * 2**20
"""Anonymous memory of a fresh worker with torch and transformers imported: 445 MiB measured, and an arena."""
DEFAULT_CONTEXT_TOKENS = 2048
"""Tokens of KV cache that room is made for unless the caller says otherwise; a shorter context bounds it."""

_MAX_HEADER = 100_000_000  # safetensors refuses longer ones
_MAX_CONFIG = 16 * 2**20
_MAX_LAYERS = 4096
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_FLOAT8 = {"F8_E4M3": 1, "F8_E5M2": 1}
_SIZES = {**_FLOATS, **_FLOAT8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_QUANTIZED = ("int8", "nf4")

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_FILE_KINDS = (("pytorch_model*.bin",), ("*.gguf",), ("*.onnx", "*.onnx_data*", "*.onnx.data"), _PICKLES)

_TEXT_PARTS = ("text_config", "language_config", "llm_config", "thinker_config", "decoder", "generator")
_GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "EncoderDecoderModel", "ForMultimodalLM")
_LAYERS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("decoder_attention_heads", "num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_INTERMEDIATE = ("intermediate_size", "decoder_ffn_dim", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
_SLIDING = ("sliding_attention", "hybrid_sliding", "reference_sliding_attention", "chunked_attention")
_NO_CACHE = ("linear_attention", "mamba", "conv", "recurrent", "moe", "mlp")
_ALL_LAYERS_SLIDE = ("mistral", "mixtral", "phi3", "phimoe", "starcoder2")

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
_UNGATED = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "codegen", "opt", "bloom", "falcon", "phi", "starcoder2",
            "gpt_bigcode", "mpt", "nemotron", "xglm")  # fmt: skip
_FOREIGN_PARTS = ("vision_config", "audio_config", "encoder", "kv_lora_rank")

Config = Mapping[str, Any]


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
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    stored_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class _Weights:
    """`dtype` is the safetensors name of what the model computes in; None: not known."""

    bytes: int
    parameters: int | None
    method: Method
    dtype: str | None
    tensors: tuple[_Tensor, ...] = ()
    warnings: tuple[str, ...] = ()


class _UnreadableError(Exception):
    """A file is no safetensors file, or not a whole one."""


def estimate(
    path: Path,
    *,
    dtype: str | None,
    context_tokens: int | None = None,
    batch: int = 1,
    quantization: str | None = None,
    runtime_bytes: int = RUNTIME_BYTES,
) -> MemoryEstimate:
    """Returns what the model in a folder (or single file) takes once loaded in `dtype`.

    `dtype`: `float32`, `float16`, `bfloat16` or their short names; None and `auto` keep the checkpoint's.
    `quantization` (or `dtype`): `int8`, `nf4`. Names that no loader knows change nothing: it is for the
    loader to refuse them. Never raises on what the files hold.
    """
    wanted = DTYPE_NAMES.get(dtype or "", dtype)
    quantized = next((name for name in (quantization, wanted) if name in _QUANTIZED), None)
    config = _read_config(path)
    weights = _weights(path, config, _DTYPES.get(wanted or ""), quantized)
    size = _FLOATS.get(weights.dtype or "", 4)
    part = _text_part(config)
    tokens = context_tokens or min(DEFAULT_CONTEXT_TOKENS, _number(part, *_CONTEXT) or DEFAULT_CONTEXT_TOKENS)
    cache = _kv_elements(config, tokens, weights.tensors) * size * batch
    forward = tokens * batch * (8 * _number(part, *_HIDDEN) + 4 * _intermediate(part)) * size
    sampling = batch * _number(part, "vocab_size") * 24 if cache else 0
    return MemoryEstimate(
        weights_bytes=weights.bytes,
        kv_cache_bytes=cache,
        overhead_bytes=runtime_bytes + max(weights.bytes // 20, forward + sampling + cache),
        method=weights.method,
        parameter_count=weights.parameters,
        warnings=weights.warnings,
    )


# ------------------------------------------------------------------------------------------- weights


def _weights(path: Path, config: Config, wanted: str | None, quantized: str | None) -> _Weights:
    declared = _declared_dtype(config)
    files, index, warnings = _safetensors_files(path)
    if files:
        try:
            tensors = [tensor for file in files for tensor in _read_header(file)]
            return _from_headers(tensors, config, wanted or declared, quantized, index, warnings)
        except _UnreadableError as exc:
            warnings = (*warnings, str(exc))
    files = files or _other_files(path)
    if files:
        stored = sum(file.stat().st_size for file in files)
        ratio = _FLOATS[wanted] / _FLOATS[declared] if wanted and declared and not _is_foreign(files[0]) else 1
        dtype = wanted or declared
        return _Weights(int(stored * ratio), _config_parameters(config), "file sizes", dtype, warnings=warnings)
    parameters = _config_parameters(config)
    if parameters is None:
        return _Weights(0, None, "unknown", wanted or declared, warnings=warnings)
    dtype = wanted or declared or "F32"
    part = _text_part(config)
    plain = 2 * _number(part, "vocab_size") * _number(part, *_HIDDEN) if quantized else parameters
    rest = _Tensor("layers", dtype, (max(parameters - plain, 0) // 1024, 1024), 0)
    total = min(plain, parameters) * _FLOATS[dtype] + (_quantized_bytes(rest, quantized) if quantized else 0)
    return _Weights(total, parameters, "config", dtype, warnings=warnings)


def _from_headers(
    tensors: list[_Tensor],
    config: Config,
    wanted: str | None,
    quantized: str | None,
    index: Config,
    warnings: tuple[str, ...],
) -> _Weights:
    by_name = sorted(tensors, key=lambda tensor: tensor.name)
    dtype = wanted or next((tensor.dtype for tensor in by_name if tensor.dtype in _FLOATS), None)
    kept = _kept_in_float32(config) if dtype == "F16" else ()
    loaded = _without_copies(by_name, config)
    # A checkpoint quantized beforehand stays as it is, but for the floats beside it.
    convertible = _FLOATS if config.get("quantization_config") else {**_FLOATS, **_FLOAT8}

    def loaded_bytes(tensor: _Tensor) -> int:
        if dtype is None or tensor.dtype not in convertible:
            return tensor.stored_bytes
        if quantized and len(tensor.shape) > 1 and not tensor.name.endswith(_INPUT_EMBEDDINGS + _OUTPUT_EMBEDDINGS):
            return _quantized_bytes(tensor, quantized)
        return tensor.elements * (4 if any(name in kept for name in tensor.name.split(".")) else _FLOATS[dtype])

    total = sum(map(loaded_bytes, loaded))
    parameters = sum(tensor.elements for tensor in loaded if tensor.dtype in convertible)
    if warnings:  # shards are missing: the index knows the bytes of all of them
        present = sum(tensor.stored_bytes for tensor in tensors)
        share = max(_number(index, "total_size") / present, 1) if present else 1
        total, parameters = int(total * share), int(parameters * share)
    return _Weights(total, parameters, "safetensors headers", dtype, tuple(loaded), warnings)


def _quantized_bytes(tensor: _Tensor, quantized: str) -> int:
    """Source: bitsandbytes. int8 has a float32 scale a row; nf4 packs two, with a float32 scale per 64."""
    if quantized == "int8":
        return tensor.elements + 4 * tensor.shape[0]
    return -(-tensor.elements // 2) + 4 * -(-tensor.elements // 64)


def _without_copies(tensors: list[_Tensor], config: Config) -> list[_Tensor]:
    """Leaves out tensors that the loaded model shares with another one."""
    part = _text_part(config)
    inputs = {tensor.shape for tensor in tensors if tensor.name.endswith(_INPUT_EMBEDDINGS)}
    shared = {tensor.shape for tensor in tensors if tensor.name.endswith("shared.weight")}
    # T5 says "tied" of every model; those whose head is their own do not scale its input.
    tied = True in (config.get("tie_word_embeddings"), part.get("tie_word_embeddings"))
    tied = tied and config.get("scale_decoder_outputs") is not False
    seen: set[tuple[int, ...]] = set()
    left = []
    for tensor in tensors:
        if tensor.name.endswith(_CODER_EMBEDDINGS) and tied and config.get("is_encoder_decoder"):
            copy = tensor.shape in shared | seen
            seen.add(tensor.shape)
        elif tensor.name.endswith(_CODER_EMBEDDINGS):
            copy = tensor.shape in shared
        else:
            copy = tied and tensor.name.endswith(_OUTPUT_EMBEDDINGS) and tensor.shape in inputs
        if not copy:
            left.append(tensor)
    return left


def _kept_in_float32(config: Config) -> tuple[str, ...]:
    kinds = {str(part.get("model_type")) for part in (config, _text_part(config))}
    return tuple(name for kind in kinds for name in _KEPT_FLOAT32.get(kind, ()))


def _declared_dtype(config: Config) -> str | None:
    for name in ("dtype", "torch_dtype"):
        if isinstance(config.get(name), str):
            return _DTYPES.get(config[name].removeprefix("torch."))
    return None


# --------------------------------------------------------------------------------------------- files


def _safetensors_files(path: Path) -> tuple[list[Path], Config, tuple[str, ...]]:
    """Returns the files in the loader's order of preference, the index's metadata, and what is missing."""
    if path.is_file():
        return ([path] if path.suffix == ".safetensors" else []), {}, ()
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"], {}, ()
    index = _read_json(path / "model.safetensors.index.json")
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        return _matching(path, ("*.safetensors",)), {}, ()
    # A name with a folder in it would lead out of the model's own.
    names = sorted({name for name in shards.values() if isinstance(name, str) and name == os.path.basename(name)})
    missing = [name for name in names if not (path / name).is_file()]
    found = [path / name for name in names if name not in missing]
    metadata = index.get("metadata")
    warnings = (f"{len(missing)} of {len(names)} weight files are missing, the first is {missing[0]}",)
    return found, metadata if isinstance(metadata, dict) else {}, warnings if missing else ()


def _other_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return next((files for kind in _FILE_KINDS if (files := _matching(path, kind))), [])


def _matching(path: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def _is_foreign(file: Path) -> bool:
    """Whether a file's weights stay in the format that they are stored in."""
    return file.suffix == ".gguf" or ".onnx" in file.name


def _read_header(file: Path) -> list[_Tensor]:
    """Returns what a safetensors file holds. Source: the format's README (8 bytes of length, JSON, data)."""
    try:
        with open(file, "rb", buffering=0) as stream:
            data = os.fstat(stream.fileno()).st_size - 8
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(data, _MAX_HEADER):
                raise _UnreadableError(f"{file.name} is no safetensors file, or is cut off")
            entries = orjson.loads(stream.read(length))
        return [_tensor(name, entry, data - length) for name, entry in entries.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _UnreadableError(f"the header of {file.name} cannot be read") from exc


def _tensor(name: str, entry: Config, data: int) -> _Tensor:
    dtype, shape = entry["dtype"], entry["shape"]
    begin, end = entry["data_offsets"]
    if len(shape) > 64 or not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("a shape or an offset is no count")
    tensor = _Tensor(name, str(dtype), tuple(shape), end - begin)
    if not begin <= end <= data or tensor.elements * _SIZES.get(dtype, 0) not in (0, end - begin):
        raise ValueError("a tensor lies outside of the file, or is not as long as its shape")
    return tensor


def _read_config(path: Path) -> Config:
    return _read_json((path.parent if path.is_file() else path) / "config.json")


def _read_json(file: Path) -> Config:
    try:
        if not file.is_file() or file.stat().st_size > (_MAX_HEADER if "index" in file.name else _MAX_CONFIG):
            return {}
        value = orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


# -------------------------------------------------------------------------------------------- config


def _text_part(config: Config) -> Config:
    """Returns the part of a composite config that describes the language model."""
    part: Config = config
    while nested := next((part[name] for name in _TEXT_PARTS if isinstance(part.get(name), dict)), None):
        part = nested
    return part


def _number(part: Config, *names: str) -> int:
    """Returns the first of the fields that is a sensible count, else 0."""
    values = (part.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 < value < 2**40), 0)


def _intermediate(part: Config) -> int:
    return _number(part, *_INTERMEDIATE) or 4 * _number(part, *_HIDDEN)


def _kv_elements(config: Config, tokens: int, tensors: tuple[_Tensor, ...]) -> int:
    """Returns the numbers in the KV cache of one sequence."""
    architectures = config.get("architectures")
    crossed = bool(config.get("is_encoder_decoder"))
    if isinstance(architectures, list) and architectures and not crossed and not any(
        str(name).endswith(_GENERATING) for name in architectures
    ):  # fmt: skip
        return 0
    part = _text_part(config)
    kinds = _layer_kinds(part)
    layers = [_of_layer(part, index, kind) for index, kind in enumerate(kinds)]
    widths = [_kv_width(layer) for layer in layers]
    if not all(widths) or not widths:
        return _projected_width(tensors) * tokens
    total = sum(width * _tokens_kept(layer, kind, tokens) for width, layer, kind in zip(widths, layers, kinds))
    if crossed:
        total += sum(widths) * (_number(config, "max_source_positions") if "num_mel_bins" in config else tokens)
    return total


def _layer_kinds(part: Config) -> list[str]:
    """Returns what each layer attends to, for the layers that have a cache of their own."""
    layers = _number(part, *_LAYERS)
    if layers > _MAX_LAYERS:
        return []
    given = next((part[name] for name in ("layer_types", "layers_block_type") if isinstance(part.get(name), list)), [])
    pattern = _number(part, "sliding_window_pattern")
    if len(given) == layers:
        kinds = [str(kind) for kind in given]
    elif pattern:
        kinds = ["sliding_attention" if (index + 1) % pattern else "full_attention" for index in range(layers)]
    else:
        slides = part.get("model_type") in _ALL_LAYERS_SLIDE
        kinds = ["sliding_attention" if slides else "full_attention"] * layers
    return kinds[: layers - min(_number(part, "num_kv_shared_layers"), layers)]


def _of_layer(part: Config, index: int, kind: str) -> Config:
    """Returns the config of one layer, which may differ from the others'."""
    own = part.get("per_layer_config")
    changed = own.get(str(index)) if isinstance(own, dict) else None
    layer = {**part, **changed} if isinstance(changed, dict) else part
    wide = _number(part, "global_head_dim") if kind == "full_attention" else 0
    return {**layer, "head_dim": wide} if wide else layer


def _kv_width(layer: Config) -> int:
    """Returns the numbers that one layer keeps for one token, keys and values together."""
    heads, hidden = _number(layer, *_HEADS), _number(layer, *_HIDDEN)
    if latent := _number(layer, "kv_lora_rank"):  # DeepSeek's latent attention
        return latent + _number(layer, "qk_rope_head_dim")
    head = _number(layer, "head_dim", "d_kv", "kv_channels") or (hidden // heads if heads else 0)
    if layer.get("new_decoder_architecture") is True:  # Falcon repeats its heads before caching them
        return 2 * heads * head
    if layer.get("multi_query") is True:
        return 2 * head
    return 2 * (_number(layer, *_KV_HEADS) or heads) * head


def _tokens_kept(layer: Config, kind: str, tokens: int) -> int:
    if kind in _NO_CACHE:
        return 0
    window = _number(layer, "attention_chunk_size" if kind == "chunked_attention" else "sliding_window")
    return min(tokens, max(window - 1, 1)) if window and kind in _SLIDING else tokens


def _projected_width(tensors: tuple[_Tensor, ...]) -> int:
    """Returns the KV numbers per token by the weights' shapes, for a config that leaves out its defaults."""
    sources = ("vision", "visual", "image", "audio", "encoder")
    names = ("k_proj.weight", "v_proj.weight")
    return sum(
        tensor.shape[0]
        for tensor in tensors
        if tensor.name.endswith(names) and tensor.shape and not any(word in tensor.name for word in sources)
    )


def _config_parameters(config: Config) -> int | None:
    """Returns the parameters of a plain decoder by arithmetic; None where the config is of another kind."""
    part = _text_part(config)
    layers, hidden, heads = _number(part, *_LAYERS), _number(part, *_HIDDEN), _number(part, *_HEADS)
    vocabulary, inner = _number(part, "vocab_size"), _intermediate(part)
    unusual = config.get("is_encoder_decoder") or any(config.get(n) or part.get(n) for n in _FOREIGN_PARTS)
    if unusual or not all((layers, hidden, heads, vocabulary)) or set(_layer_kinds(part)) & set(_NO_CACHE):
        return None
    plain = part.get("model_type") in _UNGATED
    head = _number(part, "head_dim") or hidden // heads
    attention = 2 * hidden * heads * head + hidden * _kv_width(part)
    experts = _number(part, "num_local_experts", "num_experts", "n_routed_experts")
    wide = (_number(part, "moe_intermediate_size") or inner) if experts else inner
    mlp = (2 if plain else 3) * hidden * wide * max(experts + _number(part, "n_shared_experts"), 1) + hidden * experts
    tied = True in (config.get("tie_word_embeddings"), part.get("tie_word_embeddings"))
    embeddings = vocabulary * hidden * (1 if tied else 2) + _number(part, "n_positions") * hidden
    return layers * (attention + mlp + 2 * hidden) + embeddings + hidden
