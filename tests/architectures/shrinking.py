"""Tiny configs: the sizes in an architecture's default config made small, by the names that they go under."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEADS, KEY_HEADS, HEAD_WIDTH = 64, 4, 2, 16
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")

_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "embedding_dim", "dim", "embed_dim"), WIDTH),
    **dict.fromkeys(("n_embed", "emb_dim", "word_embed_proj_dim", "entity_embed_proj_dim", "hidden_dim"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "kda_num_heads"), HEADS),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), HEADS),
    **dict.fromkeys(("head_dim", "d_kv", "v_head_dim", "qk_nope_head_dim", "attention_head_dim"), HEAD_WIDTH),
    **dict.fromkeys(("qk_rope_head_dim", "index_head_dim", "global_head_dim", "dim_head"), HEAD_WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "dff", "dim_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "intermediate_size_mlp", "shared_intermediate_size"), 96),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "expert_ff_dim"), 48),
    **dict.fromkeys(("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), 256),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "context_length"), 256),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size", "mamba_chunk_size", "chunk_size"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), HEAD_WIDTH),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_value_heads",), 4),
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": 32,
    "time_step_rank": 8,
    "relative_attention_num_buckets": 16,
}


def tiny(config_class: type[Any], overrides: Mapping[str, Any] | None = None, *, layers: int = 2) -> Any:
    """Returns a small config of a class; `overrides` win, those of its parts are mappings under their names.

    Where layers differ in kind there is one of each. Raises what the class raises for what does not go together.
    """
    return config_class(**small_values(config_class, overrides or {}, layers))


def small_values(config_class: type[Any], overrides: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Returns the arguments for a small config."""
    default = config_class()
    values = dict[str, Any]()
    for name in config_class.sub_configs:
        kind = type(getattr(default, name, None))
        given = overrides.get(name, {})
        if hasattr(kind, "sub_configs") and isinstance(given, Mapping):
            values[name] = {"model_type": kind.model_type, **small_values(kind, given, layers)}
    plain = {name: value for name, value in default.to_dict().items() if name not in config_class.sub_configs}
    count = next((plain[name] for name in _LAYERS if isinstance(plain.get(name), int)), 0)
    kept = _one_of_each(plain, count, layers)
    for name, value in plain.items():
        if name in overrides:
            continue
        if name in _LAYERS or name.endswith(("_layers_count",)):
            values[name] = len(kept) if value == count else min(layers, value or layers)
        elif isinstance(value, int) and name in ("num_key_value_heads", "num_kv_heads"):
            values[name] = HEADS if value == plain.get("num_attention_heads") else KEY_HEADS
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            values[name] = min(value, _SIZES[name]) if value > 0 else value
        elif isinstance(value, list) and len(value) == count and count:
            values[name] = [value[place] for place in kept]
    named = {name: value for name, value in overrides.items() if name not in values}
    return {**values, **named}


def _one_of_each(plain: Mapping[str, Any], count: int, layers: int) -> Sequence[int]:
    """Returns which of the default's layers stay: the first of each kind, and at least `layers`."""
    lists = [value for value in plain.values() if isinstance(value, list) and len(value) == count]
    kinds = [tuple(str(value[place]) for value in lists) for place in range(count)]
    first = sorted({kind: place for place, kind in reversed(list(enumerate(kinds)))}.values())
    others = [place for place in range(count) if place not in first]
    return sorted([*first, *others[: max(0, layers - len(first))]])[: max(layers, len(first), 1)]
