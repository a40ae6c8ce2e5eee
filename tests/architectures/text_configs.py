"""What the sizes of text models must be where a small default config is none: model type → overrides."""

from collections.abc import Mapping
from typing import Any

_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1}
_SHARED_CACHE = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
_PER_LAYER = {"hidden_size_per_layer_input": 16}
_SMALL_VISION = {"image_size": 28, "patch_size": 14}

OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "bailing_hybrid": {
        "num_expert_group": 1,
        "linear_head_dim": 16,
        "linear_num_heads": 4,
        "num_experts_per_token": 2,
        "head_dim": 16,
    },
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 500,
        "encoder_hash_byte_group_size": [3, 4],
        "patching_mode": "space",
        "patch_in_forward": False,
    },
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 96, "hidden_size": 64},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "encoder-decoder": {"decoder": {"is_decoder": True, "add_cross_attention": True}},
    "gemma3n_text": {
        **_SHARED_CACHE,
        **_PER_LAYER,
        "intermediate_size": [96] * 4,
        "activation_sparsity_pattern": [0.5] * 4,
        "laurel_rank": 8,
    },
    "gemma4_text": {
        **_PER_LAYER,
        "layer_types": ["sliding_attention", "full_attention"],
        "per_layer_config": {"1": {"head_dim": 32}},
    },
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "minicpm3": {"dim_model_base": 64},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "ngram_vocab_size_base": 64,
        "make_ngram_vocab_size_divisible_by": 1,
        "split_ngram_parts": 1,
        "hc_lowrank": 8,
        "ple_embed_dim": 64,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"lru_width": 64, "num_hidden_layers": 3, "attention_window_size": 32},
    "reformer": {
        "attention_head_size": 16,
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [32, 32],
        "hash_seed": 0,
        "num_buckets": 4,
        "feed_forward_size": 96,
        "is_decoder": True,
    },
    "roc_bert": {
        "shape_vocab_size": 200,
        "pronunciation_vocab_size": 200,
        "shape_embed_dim": 16,
        "pronunciation_embed_dim": 16,
    },
    "switch_transformers": {"num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "xlstm": {"num_blocks": 2, "qk_dim_factor": 1.0, "embedding_dim": 64},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_dt_rank": 8,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
}

OWN_TYPES: Mapping[str, str] = {
    "Dots3NoteForCausalLM": "dots3_note_text",
    "GPT2LMHeadModel": "gpt2",
    "Llama4ForCausalLM": "llama4_text",
    "LlamaForCausalLM": "llama",
    "Qwen3_5ForCausalLM": "qwen3_5_text",
    "Qwen3_5MoeForCausalLM": "qwen3_5_moe_text",
    "Qwen4ExpForCausalLM": "qwen4_exp_text",
}
"""Architecture → the model type to make it from, where it has several."""

_CODES = "it continues the codes of a sound, not a text"
_REFUSED = "the library's AutoModelForCausalLM refuses the config that this class saves"
_CODECS = "its two sound codecs have hundreds of millions of parameters, whose sizes do not shrink together"
_DRAFTS = "it drafts for another model and needs that model's cache"
_MISSING = "its tokenizer needs the package {}, which is not installed here"
LEFT_OUT: Mapping[str, str] = {
    "BioGptForCausalLM": _MISSING.format("sacremoses"),
    "BltForCausalLM": "the library's own generate() fails: it looks for num_hidden_layers, which its config lacks",
    "CpmAntForCausalLM": _MISSING.format("rjieba"),
    "Emu3ForCausalLM": _REFUSED,
    "FSMTForConditionalGeneration": _MISSING.format("sacremoses"),
    "Gemma3nForConditionalGeneration": "its vision part needs the package timm, which is not installed here",
    "Gemma4AssistantForCausalLM": _DRAFTS,
    "Gemma4UnifiedAssistantForCausalLM": _DRAFTS,
    "MllamaForCausalLM": _REFUSED,
    "MusicgenForCausalLM": _CODES,
    "MusicgenMelodyForCausalLM": _CODES,
    "Nemotron3_5TranscribeForConditionalGeneration": "its head for the times of words does not shrink with the rest",
    "RoFormerForCausalLM": _MISSING.format("rjieba"),
    "VibeVoiceAsrForConditionalGeneration": _CODECS,
    "VoxtralRealtimeForConditionalGeneration": "it writes what it hears and takes no text alone",
    "XLMWithLMHeadModel": _MISSING.format("sacremoses"),
}
"""Architecture → why it has no row."""

QUICK = ("LlamaForCausalLM", "T5ForConditionalGeneration")
"""Those that every `make test` runs."""
