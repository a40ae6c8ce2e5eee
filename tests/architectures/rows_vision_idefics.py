"""Rows of Idefics and SmolVLM, and of PaliGemma and Gemma with eyes."""

from pathlib import Path
from typing import Any

import transformers as hf
from transformers import PreTrainedTokenizerFast

from tests.architectures.vision_builders import (
    SIGLIP,
    TINY_VISION,
    byte_level,
    chat_template,
    gemma_tokenizer,
    llama_tokenizer,
    save,
    text_config,
    token_id,
)
from tests.architectures.vision_cases import by_chat, by_text, vlm

TILED = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
VISION = {**TINY_VISION, "image_size": 32, "patch_size": 8}
PARTS = {"image": "<image>", "video": "<video>"}
UTTERANCE = chat_template(
    "{{ message['role'] | capitalize }}: ", PARTS, "<end_of_utterance>\n", "Assistant:", start="<|im_start|>"
)


def smol_tokenizer(**kwargs: Any) -> Any:
    """Returns the tokenizer of SmolVLM and Idefics3: tokens for the rows and columns of tiles."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>"]
    return byte_level(
        PreTrainedTokenizerFast,
        [*special, "<global-img>", *tiles],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        **kwargs,
    )


def idefics3(folder: Path) -> None:
    """Idefics3: tiles of a picture and the whole of it, shuffled into fewer tokens."""
    tokenizer = smol_tokenizer()
    config = hf.Idefics3Config(
        vision_config=VISION,
        text_config=text_config("llama", tokenizer),
        image_token_id=token_id(tokenizer, "<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessor(**TILED), tokenizer, image_seq_len=4, chat_template=UTTERANCE
    )
    save(folder, hf.Idefics3ForConditionalGeneration(config), processor)


def smolvlm(folder: Path) -> None:
    """SmolVLM: Idefics3 with video."""
    tokenizer = smol_tokenizer()
    config = hf.SmolVLMConfig(
        vision_config=VISION,
        text_config=text_config("llama", tokenizer),
        image_token_id=token_id(tokenizer, "<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    video = hf.SmolVLMVideoProcessor(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, num_frames=8, fps=1
    )
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(**TILED), tokenizer, video, image_seq_len=4, chat_template=UTTERANCE
    )
    save(folder, hf.SmolVLMForConditionalGeneration(config), processor)


def idefics2(folder: Path) -> None:
    """Idefics2: a perceiver asks a picture of any shape."""
    tokenizer = llama_tokenizer()
    template = UTTERANCE.replace("<|im_start|>", "<s>")
    pictures = hf.Idefics2ImageProcessor(size={"shortest_edge": 24, "longest_edge": 32}, do_image_splitting=False)
    processor = hf.Idefics2Processor(pictures, tokenizer, image_seq_len=4, chat_template=template)
    perceiver = {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2}
    config = hf.Idefics2Config(
        vision_config=VISION,
        perceiver_config={**perceiver, "resampler_head_dim": 16, "num_key_value_heads": 1},
        text_config=text_config("mistral", tokenizer),
        image_token_id=token_id(tokenizer, "<image>"),
    )
    save(folder, hf.Idefics2ForConditionalGeneration(config), processor)


def paligemma(folder: Path) -> None:
    """PaliGemma: tokens of the picture, then the prompt alone."""
    tokenizer = gemma_tokenizer("<image>")
    pictures = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(pictures, tokenizer)
    text = text_config("gemma", tokenizer, head_dim=8)
    config = hf.PaliGemmaConfig(
        vision_config={**SIGLIP, "projection_dim": 32, "vision_use_head": False},
        text_config=text,
        image_token_index=token_id(tokenizer, "<image>"),
        vocab_size=text["vocab_size"],
        projection_dim=32,
        hidden_size=32,
    )
    save(folder, hf.PaliGemmaForConditionalGeneration(config), processor)


GEMMA_MARKS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
GEMMA_CHAT = chat_template(
    "<start_of_turn>{{ message['role'] }}\n",
    {"image": "<start_of_image>"},
    "<end_of_turn>\n",
    "<start_of_turn>model\n",
    start="<bos>",
)


def gemma3(folder: Path) -> None:
    """Gemma 3: the picture's tokens see each other, the text only what came before."""
    tokenizer = gemma_tokenizer(*GEMMA_MARKS.values(), extra_special_tokens=GEMMA_MARKS)
    pictures = hf.Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = hf.Gemma3Processor(pictures, tokenizer, chat_template=GEMMA_CHAT, image_seq_length=4)
    layers = ["sliding_attention", "full_attention"]
    config = hf.Gemma3Config(
        vision_config={**SIGLIP, "vision_use_head": False},
        text_config=text_config(
            "gemma3_text", tokenizer, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, layer_types=layers
        ),
        mm_tokens_per_image=4,
        boi_token_index=token_id(tokenizer, "<start_of_image>"),
        eoi_token_index=token_id(tokenizer, "<end_of_image>"),
        image_token_index=token_id(tokenizer, "<image_soft_token>"),
    )
    save(folder, hf.Gemma3ForConditionalGeneration(config), processor)


GEMMA4_MARKS = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
GEMMA4_AUDIO = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}


def gemma4(folder: Path) -> None:
    """Gemma 4: pictures of their own shape, within a number of tokens."""
    marks = {**GEMMA4_MARKS, **GEMMA4_AUDIO}
    tokenizer = gemma_tokenizer(*marks.values(), "<|video|>", extra_special_tokens=marks)
    template = GEMMA_CHAT.replace("<start_of_image>", "<|image|>")
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        hf.Gemma4ImageProcessor(patch_size=8, max_soft_tokens=70, pooling_kernel_size=3),
        tokenizer,
        hf.Gemma4VideoProcessor(patch_size=8, max_soft_tokens=70, pooling_kernel_size=3),
        chat_template=template,
        image_seq_length=70,
    )
    vision = {**TINY_VISION, "head_dim": 8, "num_key_value_heads": 4, "patch_size": 8, "position_embedding_size": 256}
    config = hf.Gemma4Config(
        vision_config=vision,
        text_config=text_config(
            "gemma4_text",
            tokenizer,
            head_dim=8,
            layer_types=["sliding_attention", "full_attention"],
            vocab_size_per_layer_input=len(tokenizer),
            hidden_size_per_layer_input=16,
            sliding_window=64,
        ),
        boi_token_id=token_id(tokenizer, "<|image>"),
        eoi_token_id=token_id(tokenizer, "<image|>"),
        image_token_id=token_id(tokenizer, "<|image|>"),
        video_token_id=token_id(tokenizer, "<|video|>"),
        boa_token_id=token_id(tokenizer, "<|audio>"),
        eoa_token_index=token_id(tokenizer, "<audio|>"),
        audio_token_id=token_id(tokenizer, "<|audio|>"),
    )
    save(folder, hf.Gemma4ForConditionalGeneration(config), processor)


CASES = [
    vlm("Idefics3ForConditionalGeneration", idefics3, by_chat, quick=True),
    vlm("SmolVLMForConditionalGeneration", smolvlm, by_chat),
    vlm("Idefics2ForConditionalGeneration", idefics2, by_chat),
    vlm("PaliGemmaForConditionalGeneration", paligemma, by_text("{prompt}"), quick=True),
    vlm("Gemma3ForConditionalGeneration", gemma3, by_chat),
    vlm("Gemma4ForConditionalGeneration", gemma4, by_chat),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
