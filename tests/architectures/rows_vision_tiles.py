"""Rows of models that cut a picture into tiles, or keep its shape: InternVL, Ovis, Aya, Cohere, Pixtral, Llama …"""

from pathlib import Path
from typing import Any

import transformers as hf
from transformers import PreTrainedTokenizerFast

from tests.architectures.vision_builders import (
    SIGLIP,
    TINY_VISION,
    byte_level,
    chat_template,
    chatml,
    qwen_tokenizer,
    save,
    text_config,
    token_id,
)
from tests.architectures.vision_cases import by_chat, vlm

SIDE = {"height": 32, "width": 32}


def internvl(folder: Path) -> None:
    """InternVL: tiles of a picture, four patches to a token."""
    marks = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = qwen_tokenizer(*marks.values())
    tokenizer._set_model_specific_special_tokens(marks)
    config = hf.InternVLConfig(
        vision_config={**TINY_VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config=text_config("qwen2", tokenizer),
        image_token_id=token_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=SIDE, crop_to_patches=True, max_patches=4),
        tokenizer,
        hf.InternVLVideoProcessor(size=SIDE),
        image_seq_length=4,
        chat_template=chatml(image="<IMG_CONTEXT>\n", video="<video>\n"),
    )
    save(folder, hf.InternVLForConditionalGeneration(config), processor)


def ovis2(folder: Path) -> None:
    """Ovis 2: words of pictures, as probabilities over a vocabulary of them."""
    indicators = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tokenizer = qwen_tokenizer("<image>", "<IMG_ATOM>", *indicators)
    config = hf.Ovis2Config(
        vision_config={
            **TINY_VISION,
            "image_size": 32,
            "patch_size": 8,
            "vocab_size": 64,
            "hidden_stride": 2,
            "num_visual_indicator_tokens": 5,
        },
        text_config=text_config("qwen2", tokenizer),
        image_token_id=token_id(tokenizer, "<IMG_ATOM>"),
        visual_indicator_token_ids=[token_id(tokenizer, token) for token in indicators],
        vocab_size=len(tokenizer),
        hidden_size=32,
    )
    processor = hf.Ovis2Processor(
        hf.Ovis2ImageProcessor(size=SIDE, crop_to_patches=True, max_patches=4),
        tokenizer,
        chat_template=chatml(image="<image>\n"),
        image_seq_length=4,
    )
    save(folder, hf.Ovis2ForConditionalGeneration(config), processor)


def cohere_tokenizer(*special: str, **kwargs: Any) -> Any:
    """Returns a tokenizer with the tokens of Cohere's chats and others."""
    own = ["<PAD>", "<UNK>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>"]
    sides = ["<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
    return byte_level(
        hf.CohereTokenizer,
        [*own, *sides, *special],
        pad_token="<PAD>",
        unk_token="<UNK>",
        bos_token="<BOS_TOKEN>",
        eos_token="<|END_OF_TURN_TOKEN|>",
        **kwargs,
    )


def cohere_chat(image: str) -> str:
    """Returns the chat template of Command and Aya."""
    return chat_template(
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        {"image": image},
        "<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        start="<BOS_TOKEN>",
    )


def aya_vision(folder: Path) -> None:
    """Aya Vision: SigLIP before Cohere, tiles that are named."""
    special = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"]
    tokenizer = cohere_tokenizer(*special, "TILE_GLOBAL", *(f"TILE_{number}" for number in range(1, 13)))
    config = hf.AyaVisionConfig(
        vision_config={**SIGLIP, "vision_use_head": False},
        text_config=text_config("cohere2", tokenizer, logit_scale=1.0),
        image_token_index=token_id(tokenizer, "<|IMG_PATCH|>"),
        vision_feature_layer=-1,
    )
    processor = hf.AyaVisionProcessor(
        hf.GotOcr2ImageProcessor(size=SIDE, crop_to_patches=True, max_patches=4),
        tokenizer,
        patch_size=8,
        img_size=32,
        downsample_factor=2,
        chat_template=cohere_chat("<image>"),
    )
    save(folder, hf.AyaVisionForConditionalGeneration(config), processor)


def cohere2_vision(folder: Path) -> None:
    """Command A Vision."""
    marks = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "image_token": "<|IMG_PATCH|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    tokenizer = cohere_tokenizer(*marks.values(), extra_special_tokens=marks)
    config = hf.Cohere2VisionConfig(
        vision_config={**SIGLIP, "vision_use_head": False},
        text_config=text_config("cohere2", tokenizer, logit_scale=1.0),
        image_token_id=token_id(tokenizer, "<|IMG_PATCH|>"),
        alignment_intermediate_size=64,
    )
    processor = hf.Cohere2VisionProcessor(
        hf.Cohere2VisionImageProcessor(size=SIDE, crop_to_patches=True, max_patches=4, patch_size=2),
        tokenizer,
        chat_template=cohere_chat("<|IMG_PATCH|>"),
    )
    save(folder, hf.Cohere2VisionForConditionalGeneration(config), processor)


MISTRAL_CHAT = chat_template("[INST]", {"image": "[IMG]"}, "[/INST]", "", start="<s>")
PIXTRAL = {**TINY_VISION, "model_type": "pixtral", "image_size": 64, "patch_size": 8, "head_dim": 8}


def mistral_tokenizer() -> Any:
    """Returns a tokenizer with the tokens of Mistral's chats."""
    special = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return byte_level(PreTrainedTokenizerFast, special, **named)


def pixtral_processor(tokenizer: Any, merge: int) -> Any:
    """Returns a processor that keeps a picture's shape."""
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8})
    return hf.PixtralProcessor(pictures, tokenizer, patch_size=8, spatial_merge_size=merge, chat_template=MISTRAL_CHAT)


def pixtral(folder: Path) -> None:
    """Pixtral: LLaVA's class with a tower for pictures of any shape."""
    tokenizer = mistral_tokenizer()
    config = hf.LlavaConfig(
        vision_config=PIXTRAL,
        text_config=text_config("mistral", tokenizer, head_dim=8),
        image_token_index=token_id(tokenizer, "[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    save(folder, hf.LlavaForConditionalGeneration(config), pixtral_processor(tokenizer, 1))


def mistral3(folder: Path) -> None:
    """Mistral Small 3.1: Pixtral's tower, four patches to a token."""
    tokenizer = mistral_tokenizer()
    config = hf.Mistral3Config(
        vision_config=PIXTRAL,
        text_config=text_config("mistral", tokenizer, head_dim=8),
        image_token_index=token_id(tokenizer, "[IMG]"),
        vision_feature_layer=-1,
        spatial_merge_size=2,
    )
    save(folder, hf.Mistral3ForConditionalGeneration(config), pixtral_processor(tokenizer, 2))


def llama_tokenizer(*special: str, **kwargs: Any) -> Any:
    """Returns a tokenizer with the tokens of Llama 3's chats and others."""
    own = ["<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    return byte_level(
        PreTrainedTokenizerFast,
        [*own, "<|python_tag|>", *special],
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        **kwargs,
    )


def llama_chat(**part: str) -> str:
    """Returns the chat template of Llama 3."""
    head = "<|start_header_id|>ROLE<|end_header_id|>\n\n"
    return chat_template(head, part, "<|eot_id|>", head.replace("ROLE", "assistant"), start="<|begin_of_text|>")


def mllama(folder: Path) -> None:
    """Llama 3.2 Vision: layers that look at the picture between those that read."""
    tokenizer = llama_tokenizer()
    # The token of pictures is the first behind the vocabulary of the answer.
    config = hf.MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "vision_output_dim": 64,
            "image_size": 32,
            "patch_size": 8,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        text_config=text_config("mllama_text_model", tokenizer, num_hidden_layers=3, cross_attention_layers=[1]),
        image_token_index=len(tokenizer),
    )
    tokenizer.add_tokens(["<|image|>"], special_tokens=True)
    pictures = hf.MllamaImageProcessor(size=SIDE, max_image_tiles=4)
    processor = hf.MllamaProcessor(pictures, tokenizer, chat_template=llama_chat(image="<|image|>"))
    save(folder, hf.MllamaForConditionalGeneration(config), processor)


CASES = [
    vlm("InternVLForConditionalGeneration", internvl, by_chat),
    vlm("Ovis2ForConditionalGeneration", ovis2, by_chat),
    vlm("AyaVisionForConditionalGeneration", aya_vision, by_chat),
    vlm("Cohere2VisionForConditionalGeneration", cohere2_vision, by_chat),
    vlm("Mistral3ForConditionalGeneration", mistral3, by_chat),
    vlm("MllamaForConditionalGeneration", mllama, by_chat),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
