"""Rows of LLaVA and its descendants: a vision tower, a projector, a language model."""

from pathlib import Path

import transformers as hf

from tests.architectures.vision_builders import (
    CLIP,
    GRID,
    SIGLIP,
    SQUARE,
    chat_template,
    chatml,
    llama_tokenizer,
    qwen_tokenizer,
    save,
    text_config,
    token_id,
)
from tests.architectures.vision_cases import by_chat, by_text, vlm

VICUNA = chat_template(
    "{{ message['role'] | upper }}: ", {"image": "<image>\n", "video": "<video>\n"}, " ", "ASSISTANT:"
)
TOWER = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def llava(folder: Path) -> None:
    """LLaVA 1.5: CLIP's last but one layer without its class token, before Llama."""
    tokenizer = llama_tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=CLIP,
        text_config=text_config("llama", tokenizer),
        image_token_index=token_id(tokenizer, "<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    pictures = hf.CLIPImageProcessor(**SQUARE)
    processor = hf.LlavaProcessor(pictures, tokenizer, **TOWER, chat_template=VICUNA)
    save(folder, hf.LlavaForConditionalGeneration(config), processor)


def llava_next(folder: Path) -> None:
    """LLaVA-NeXT: a picture is also cut into tiles."""
    tokenizer = llama_tokenizer("<image>")
    config = hf.LlavaNextConfig(
        vision_config=CLIP,
        text_config=text_config("llama", tokenizer),
        image_token_index=token_id(tokenizer, "<image>"),
        image_grid_pinpoints=GRID,
        vision_feature_select_strategy="default",
    )
    pictures = hf.LlavaNextImageProcessor(**SQUARE, image_grid_pinpoints=GRID)
    processor = hf.LlavaNextProcessor(pictures, tokenizer, **TOWER, chat_template=VICUNA)
    save(folder, hf.LlavaNextForConditionalGeneration(config), processor)


def llava_next_video(folder: Path) -> None:
    """LLaVA-NeXT-Video: frames are pooled."""
    tokenizer = llama_tokenizer("<image>", "<video>")
    config = hf.LlavaNextVideoConfig(
        vision_config=CLIP,
        text_config=text_config("llama", tokenizer),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
        image_grid_pinpoints=GRID,
        vision_feature_select_strategy="default",
    )
    processor = hf.LlavaNextVideoProcessor(
        hf.LlavaNextVideoVideoProcessor(**SQUARE),
        hf.LlavaNextImageProcessor(**SQUARE, image_grid_pinpoints=GRID),
        tokenizer,
        **TOWER,
        chat_template=VICUNA,
    )
    save(folder, hf.LlavaNextVideoForConditionalGeneration(config), processor)


def llava_onevision(folder: Path) -> None:
    """LLaVA-OneVision: SigLIP before Qwen2."""
    tokenizer = qwen_tokenizer("<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config={**SIGLIP, "vision_use_head": False},
        text_config=text_config("qwen2", tokenizer),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
        image_grid_pinpoints=GRID,
        vision_feature_select_strategy="full",
    )
    size = {"height": 32, "width": 32}
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=GRID),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        chat_template=chatml(image="<image>\n", video="<video>\n"),
    )
    save(folder, hf.LlavaOnevisionForConditionalGeneration(config), processor)


def video_llava(folder: Path) -> None:
    """Video-LLaVA: one tower for pictures, one for frames."""
    tokenizer = llama_tokenizer("<image>", "<video>")
    config = hf.VideoLlavaConfig(
        vision_config=CLIP,
        text_config=text_config("llama", tokenizer),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
        video_seq_length=8 * 17,
        image_seq_length=16,
        vision_feature_select_strategy="default",
    )
    processor = hf.VideoLlavaProcessor(
        hf.VideoLlavaImageProcessor(**SQUARE),
        hf.VideoLlavaVideoProcessor(**SQUARE),
        tokenizer,
        **TOWER,
    )
    save(folder, hf.VideoLlavaForConditionalGeneration(config), processor)


def vipllava(folder: Path) -> None:
    """ViP-LLaVA: several layers of CLIP at once."""
    tokenizer = llama_tokenizer("<image>")
    config = hf.VipLlavaConfig(
        vision_config=CLIP,
        text_config=text_config("llama", tokenizer),
        image_token_index=token_id(tokenizer, "<image>"),
        vision_feature_layers=[-1, -2],
    )
    pictures = hf.CLIPImageProcessor(**SQUARE)
    save(folder, hf.VipLlavaForConditionalGeneration(config), hf.LlavaProcessor(pictures, tokenizer, **TOWER))


VIP_PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions.###Human: <image>\n{prompt}###Assistant:"
)

CASES = [
    vlm("LlavaForConditionalGeneration", llava, by_chat, quick=True),
    vlm("LlavaNextForConditionalGeneration", llava_next, by_chat),
    vlm("LlavaNextVideoForConditionalGeneration", llava_next_video, by_chat),
    vlm("LlavaOnevisionForConditionalGeneration", llava_onevision, by_chat),
    vlm("VideoLlavaForConditionalGeneration", video_llava, by_text("USER: <image>\n{prompt} ASSISTANT:")),
    vlm("VipLlavaForConditionalGeneration", vipllava, by_text(VIP_PROMPT)),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
