"""What a model's `config.json` says of its size: KV cache and parameters, by arithmetic on its fields.

Everything takes the parsed JSON as it is. A field that is missing or no sensible number counts as unknown,
and nothing here raises: the files come from strangers.
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

_MAX_LAYERS = 4096
_TEXT_PARTS = ("text_config", "language_config", "llm_config", "thinker_config", "decoder", "generator")
_GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "EncoderDecoderModel", "ForMultimodalLM")

_LAYERS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("decoder_attention_heads", "num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_INTERMEDIATE = ("intermediate_size", "decoder_ffn_dim", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")

_SLIDING = ("sliding_attention", "hybrid_sliding", "reference_sliding_attention", "chunked_attention")
_NO_CACHE = ("linear_attention", "mamba", "conv", "recurrent", "moe", "mlp")
# Where every layer slides though `layer_types` is not written down; of others it may be some, so none is taken to.
_ALL_LAYERS_SLIDE = ("mistral", "mixtral", "phi3", "phimoe", "starcoder2")
# Two matrices in the MLP instead of three.
_UNGATED = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "codegen", "opt", "bloom", "falcon", "phi", "starcoder2",
            "gpt_bigcode", "mpt", "nemotron", "xglm")  # fmt: skip
_NO_PLAIN_DECODER = ("vision_config", "audio_config", "encoder", "kv_lora_rank")


def text_part(config: Config) -> Config:
    """Returns the part of a composite config that describes the language model; else the whole."""
    part = config
    while nested := next((part[name] for name in _TEXT_PARTS if isinstance(part.get(name), dict)), None):
        part = nested
    return part


def number(part: Config, *names: str) -> int:
    """Returns the first of the fields that is a sensible count, else 0."""
    values = (part.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 < value < 2**40), 0)


def is_tied(config: Config) -> bool:
    """Whether input and output embeddings are one tensor, if the checkpoint has not two different ones."""
    # T5 says so of every model; those whose head is their own do not scale its input.
    flags = (config.get("tie_word_embeddings"), text_part(config).get("tie_word_embeddings"))
    return True in flags and config.get("scale_decoder_outputs") is not False


def context_length(config: Config) -> int | None:
    """Returns the most tokens that the model was made for."""
    return number(text_part(config), *_CONTEXT) or None


def forward_width(config: Config) -> int:
    """Returns the numbers that a forward pass holds at once for each token, about."""
    part = text_part(config)
    return 8 * number(part, *_HIDDEN) + 4 * _intermediate(part)


def generates(config: Config) -> bool:
    """Whether the model answers token by token, with a KV cache; in doubt it does."""
    names = config.get("architectures")
    if config.get("is_encoder_decoder") or not isinstance(names, list) or not names:
        return True
    return any(str(name).endswith(_GENERATING) for name in names)


def kv_elements(config: Config, tokens: int) -> int | None:
    """Returns the numbers in the KV cache of one sequence of `tokens`; None where the fields are missing.

    A sliding layer keeps `window - 1` tokens; an encoder-decoder model has a second cache over what the
    encoder read. Source: `DynamicCache` and `EncoderDecoderCache` in transformers/cache_utils.py.
    """
    part = text_part(config)
    kinds = _layer_kinds(part)
    layers = [_of_layer(part, index, kind) for index, kind in enumerate(kinds)]
    widths = [_kv_width(layer, kind) for layer, kind in zip(layers, kinds, strict=True)]
    if not widths or not all(widths):
        return None
    kept = [_tokens_kept(layer, kind, tokens) for layer, kind in zip(layers, kinds, strict=True)]
    total = sum(width * count for width, count in zip(widths, kept, strict=True))
    if config.get("is_encoder_decoder"):
        read = number(config, "max_source_positions") if "num_mel_bins" in config else tokens
        total += sum(widths) * read
    return total


def parameter_count(config: Config) -> int | None:
    """Returns the parameters of a plain decoder, biases left out; None where the config is of another kind.

    Embeddings count twice unless the config says that they are tied.
    """
    part = text_part(config)
    layers, hidden, heads = number(part, *_LAYERS), number(part, *_HIDDEN), number(part, *_HEADS)
    vocabulary = number(part, "vocab_size")
    unusual = config.get("is_encoder_decoder") or any(config.get(name) or part.get(name) for name in _NO_PLAIN_DECODER)
    if unusual or not all((layers, hidden, heads, vocabulary)) or set(_layer_kinds(part)) & set(_NO_CACHE):
        return None
    head = number(part, "head_dim") or hidden // heads
    attention = 2 * hidden * heads * head + hidden * _kv_width(part, "full_attention")
    matrices = 2 if part.get("model_type") in _UNGATED else 3
    experts = number(part, *_EXPERTS)
    inner = (number(part, "moe_intermediate_size") if experts else 0) or _intermediate(part)
    mlp = matrices * hidden * inner * max(experts + number(part, "n_shared_experts"), 1) + hidden * experts
    embeddings = vocabulary * (1 if is_tied(config) else 2) + number(part, "n_positions")
    return layers * (attention + mlp + 2 * hidden) + (embeddings + 1) * hidden


def embedding_parameters(config: Config) -> int:
    """Returns how many of the parameters are input and output embeddings."""
    part = text_part(config)
    return number(part, "vocab_size") * number(part, *_HIDDEN) * (1 if is_tied(config) else 2)


def _intermediate(part: Config) -> int:
    return number(part, *_INTERMEDIATE) or 4 * number(part, *_HIDDEN)


def _layer_kinds(part: Config) -> list[str]:
    """Returns what each layer attends to, for the layers that have a cache of their own."""
    layers = number(part, *_LAYERS)
    if layers > _MAX_LAYERS:
        return []
    given: Any = part.get("layer_types") or part.get("layers_block_type")
    pattern = number(part, "sliding_window_pattern")
    if isinstance(given, list) and len(given) == layers:
        kinds = [str(kind) for kind in given]
    elif pattern:
        kinds = ["sliding_attention" if (index + 1) % pattern else "full_attention" for index in range(layers)]
    else:
        slides = part.get("model_type") in _ALL_LAYERS_SLIDE
        kinds = ["sliding_attention" if slides else "full_attention"] * layers
    return kinds[: layers - min(number(part, "num_kv_shared_layers"), layers)]


def _of_layer(part: Config, index: int, kind: str) -> Config:
    """Returns the config of one layer, which may differ from the others'."""
    own = part.get("per_layer_config")
    changed = own.get(str(index)) if isinstance(own, dict) else None
    layer = {**part, **changed} if isinstance(changed, dict) else part
    wide = number(part, "global_head_dim") if kind == "full_attention" else 0
    return {**layer, "head_dim": wide} if wide else layer


def _kv_width(layer: Config, kind: str) -> int:
    """Returns the numbers that one layer keeps for one token, keys and values together."""
    heads, hidden = number(layer, *_HEADS), number(layer, *_HIDDEN)
    indexed = number(layer, "index_head_dim") if kind == "indexed_attention" else 0
    if latent := number(layer, "kv_lora_rank"):  # DeepSeek's latent attention
        return latent + number(layer, "qk_rope_head_dim") + indexed
    head = number(layer, "head_dim", "d_kv", "kv_channels") or (hidden // heads if heads else 0)
    if layer.get("new_decoder_architecture") is True:  # Falcon repeats its heads before it caches them
        return 2 * heads * head
    if layer.get("multi_query") is True:
        return 2 * head
    return 2 * (number(layer, *_KV_HEADS) or heads) * head + indexed


def _tokens_kept(layer: Config, kind: str, tokens: int) -> int:
    if kind in _NO_CACHE:
        return 0
    window = number(layer, "attention_chunk_size" if kind == "chunked_attention" else "sliding_window")
    return min(tokens, max(window - 1, 1)) if window and kind in _SLIDING else tokens
