"""Rows of vision-language models with ways of their own: Idefics, Emu3, DeepSeek-VL's hybrid, T5Gemma 2."""

from pathlib import Path
from typing import Any

import transformers as hf
from PIL import Image
from transformers import PreTrainedTokenizerFast

from tests.architectures.case import Outcome
from tests.architectures.rows_vision_idefics import GEMMA_CHAT, GEMMA_MARKS
from tests.architectures.rows_vision_more import DEEPSEEK_CHAT, deepseek_tokenizer
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import (
    SIGLIP,
    TINY_TEXT,
    byte_level,
    chat_template,
    gemma_tokenizer,
    llama_tokenizer,
    save,
    text_config,
    token_id,
)
from tests.architectures.vision_cases import by_chat, load, vlm

SIDE = {"height": 32, "width": 32}


def idefics(folder: Path) -> None:
    """Idefics: layers that look at the picture between those of Llama."""
    tokenizer = llama_tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    more = 2
    config = hf.IdeficsConfig(
        **{name: value for name, value in TINY_TEXT.items() if name != "num_key_value_heads"},
        vocab_size=len(tokenizer) - more,
        additional_vocab_size=more,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        alpha_initializer="ones",
        vision_config={
            "embed_dim": 32,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        use_resampler=False,
    )
    processor = hf.IdeficsProcessor(hf.IdeficsImageProcessor(image_size=32), tokenizer, image_size=32)
    save(folder, hf.IdeficsForVisionText2Text(config), processor)


def by_parts(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Idefics: texts and pictures in a list, in the order in which they are meant."""
    model, processor = load(folder)
    parts = [f"User: {data['prompt']}", Image.fromarray(data["image"]), "<end_of_utterance>", "\nAssistant:"]
    inputs = processor(text=[parts], return_tensors="pt")
    return generated(model, processor.tokenizer, inputs, skip=inputs["input_ids"].shape[1])


def deepseek_vl_hybrid(folder: Path) -> None:
    """DeepSeek-VL's hybrid: SigLIP beside a tower that sees more."""
    tokenizer = deepseek_tokenizer()
    config = hf.DeepseekVLHybridConfig(
        vision_config={**SIGLIP, "vision_use_head": False},
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_dim": 64,
            "image_size": 128,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
        },
        text_config=text_config("llama", tokenizer),
        image_token_id=token_id(tokenizer, "<image_placeholder>"),
    )
    pictures = hf.DeepseekVLHybridImageProcessor(size=SIDE, min_size=8, high_res_size={"height": 128, "width": 128})
    processor = hf.DeepseekVLHybridProcessor(pictures, tokenizer, chat_template=DEEPSEEK_CHAT, num_image_tokens=16)
    save(folder, hf.DeepseekVLHybridForConditionalGeneration(config), processor)


EMU_MARKS = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}


def emu3(folder: Path) -> None:
    """Emu3: a picture becomes words of a codebook, with the ends of its rows."""
    codes = [f"<|visual token {number:06d}|>" for number in range(32)]
    own = ["<|extra_203|>", "<|extra_204|>", "<|endoftext|>", "<|extra_200|>", *EMU_MARKS.values()]
    tokenizer = byte_level(
        PreTrainedTokenizerFast,
        [*own, *codes],
        bos_token="<|extra_203|>",
        eos_token="<|extra_204|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=EMU_MARKS,
    )
    names = ["<image>", "<|extra_200|>", *codes]
    config = hf.Emu3Config(
        vq_config={
            "codebook_size": 32,
            "embed_dim": 4,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "hidden_size": 32,
            "attn_resolutions": [2],
            "temporal_downsample_factor": 1,
        },
        text_config=text_config("emu3_text_model", tokenizer),
        vocabulary_map={name: token_id(tokenizer, name) for name in names},
    )
    pictures = hf.Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=64 * 64, spatial_factor=8)
    template = chat_template(
        "<|extra_203|>You are a helpful assistant. USER: ", {"image": "<image>"}, " ", "ASSISTANT:"
    )
    save(folder, hf.Emu3ForConditionalGeneration(config), hf.Emu3Processor(pictures, tokenizer, chat_template=template))


def t5gemma2(folder: Path) -> None:
    """T5Gemma 2: an encoder that sees, a decoder that writes."""
    tokenizer = gemma_tokenizer(*GEMMA_MARKS.values(), extra_special_tokens=GEMMA_MARKS)
    pictures = hf.Gemma3ImageProcessor(size=SIDE)
    processor = hf.Gemma3Processor(pictures, tokenizer, chat_template=GEMMA_CHAT, image_seq_length=4)
    layers = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}
    kinds = {"layer_types": ["sliding_attention", "full_attention"]}
    text = {**text_config("t5gemma2_text", tokenizer), **layers, **kinds}
    place = token_id(tokenizer, "<image_soft_token>")
    config = hf.T5Gemma2Config(
        encoder={
            "text_config": text,
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "mm_tokens_per_image": 4,
            "boi_token_index": token_id(tokenizer, "<start_of_image>"),
            "eoi_token_index": token_id(tokenizer, "<end_of_image>"),
            "image_token_index": place,
        },
        decoder={**text, "model_type": "t5gemma2_decoder"},
        image_token_index=place,
    )
    save(folder, hf.T5Gemma2ForConditionalGeneration(config), processor)


CASES = [
    vlm("IdeficsForVisionText2Text", idefics, by_parts),
    vlm("DeepseekVLHybridForConditionalGeneration", deepseek_vl_hybrid, by_chat),
    vlm("Emu3ForConditionalGeneration", emu3, by_chat),
    vlm("T5Gemma2ForConditionalGeneration", t5gemma2, by_chat),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
