"""Rows of Qwen's vision-language models and of those that see like them."""

from pathlib import Path
from typing import Any

import transformers as hf

from tests.architectures.vision_builders import chatml, qwen_tokenizer, save, text_config, token_id
from tests.architectures.vision_cases import by_chat, vlm

MARKS = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
VISION = {"depth": 2, "num_heads": 4, "in_channels": 3, "patch_size": 8, "spatial_merge_size": 2}
SMALL = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def ids(tokenizer: Any) -> dict[str, int]:
    """Returns a config's names of the vision tokens."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return {name: token_id(tokenizer, token) for name, token in zip(names, TOKENS, strict=True)}


def processor(kind: Any, tokenizer: Any, video: Any, **kwargs: Any) -> Any:
    """Returns a processor that cuts pictures and frames into patches of 8 pixels."""
    return kind(
        hf.Qwen2VLImageProcessor(patch_size=8, size=SMALL, **kwargs),
        tokenizer,
        video(patch_size=8, size=SMALL, **kwargs),
        chat_template=chatml(**MARKS),
    )


def qwen2_vl(folder: Path) -> None:
    """Qwen2-VL: patches of any number, positions in three dimensions."""
    tokenizer = qwen_tokenizer(*TOKENS)
    config = hf.Qwen2VLConfig(
        vision_config={**VISION, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
        text_config=text_config("qwen2_vl_text", tokenizer, rope_parameters=ROPE),
        **ids(tokenizer),
    )
    made = processor(hf.Qwen2VLProcessor, tokenizer, hf.Qwen2VLVideoProcessor)
    save(folder, hf.Qwen2VLForConditionalGeneration(config), made)


def qwen2_5_vl(folder: Path) -> None:
    """Qwen2.5-VL: attention within windows of a picture."""
    tokenizer = qwen_tokenizer(*TOKENS)
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            **VISION,
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        text_config=text_config("qwen2_5_vl_text", tokenizer, rope_parameters=ROPE),
        **ids(tokenizer),
    )
    made = processor(hf.Qwen2_5_VLProcessor, tokenizer, hf.Qwen2VLVideoProcessor)
    save(folder, hf.Qwen2_5_VLForConditionalGeneration(config), made)


QWEN3_VISION = {
    **VISION,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}
QWEN3_ROPE = {**ROPE, "mrope_interleaved": True}


def qwen3_vl(folder: Path) -> None:
    """Qwen3-VL: layers of the vision tower go into several layers of the language model."""
    tokenizer = qwen_tokenizer(*TOKENS)
    config = hf.Qwen3VLConfig(
        vision_config=QWEN3_VISION,
        text_config=text_config("qwen3_vl_text", tokenizer, head_dim=8, rope_parameters=QWEN3_ROPE),
        **ids(tokenizer),
    )
    made = processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor)
    save(folder, hf.Qwen3VLForConditionalGeneration(config), made)


def qwen3_vl_moe(folder: Path) -> None:
    """Qwen3-VL with experts."""
    tokenizer = qwen_tokenizer(*TOKENS)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = hf.Qwen3VLMoeConfig(
        vision_config=QWEN3_VISION,
        text_config=text_config("qwen3_vl_moe_text", tokenizer, head_dim=8, rope_parameters=QWEN3_ROPE, **experts),
        **ids(tokenizer),
    )
    made = processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor)
    save(folder, hf.Qwen3VLMoeForConditionalGeneration(config), made)


LINEAR = {
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_conv_kernel_dim": 2,
    "layer_types": ["linear_attention", "full_attention"],
}


def qwen3_5(folder: Path) -> None:
    """Qwen3.5: linear attention in turn with full attention."""
    tokenizer = qwen_tokenizer(*TOKENS)
    vision = {name: value for name, value in QWEN3_VISION.items() if name != "deepstack_visual_indexes"}
    rope = {**QWEN3_ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}
    config = hf.Qwen3_5Config(
        vision_config=vision,
        text_config=text_config("qwen3_5_text", tokenizer, rope_parameters=rope, **LINEAR),
        **ids(tokenizer),
    )
    made = processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor)
    save(folder, hf.Qwen3_5ForConditionalGeneration(config), made)


def qwen3_5_moe(folder: Path) -> None:
    """Qwen3.5 with experts."""
    tokenizer = qwen_tokenizer(*TOKENS)
    vision = {name: value for name, value in QWEN3_VISION.items() if name != "deepstack_visual_indexes"}
    rope = {**QWEN3_ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    config = hf.Qwen3_5MoeConfig(
        vision_config=vision,
        text_config=text_config("qwen3_5_moe_text", tokenizer, rope_parameters=rope, **LINEAR, **experts),
        **ids(tokenizer),
    )
    made = processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor)
    save(folder, hf.Qwen3_5MoeForConditionalGeneration(config), made)


CASES = [
    vlm("Qwen2VLForConditionalGeneration", qwen2_vl, by_chat, quick=True),
    vlm("Qwen2_5_VLForConditionalGeneration", qwen2_5_vl, by_chat),
    vlm("Qwen3VLForConditionalGeneration", qwen3_vl, by_chat),
    vlm("Qwen3VLMoeForConditionalGeneration", qwen3_vl_moe, by_chat),
    vlm("Qwen3_5ForConditionalGeneration", qwen3_5, by_chat),
    vlm("Qwen3_5MoeForConditionalGeneration", qwen3_5_moe, by_chat),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
