"""Rows of further vision-language models: towers and tokens of other kinds."""

from pathlib import Path
from typing import Any

import transformers as hf
from transformers import PreTrainedTokenizerFast

from tests.architectures.case import Outcome
from tests.architectures.vision_builders import (
    SIGLIP,
    SQUARE,
    TINY_VISION,
    byte_level,
    chat_template,
    chatml,
    qwen_tokenizer,
    save,
    text_config,
    token_id,
    unigram,
)
from tests.architectures.vision_cases import by_chat, by_text, vlm

SIDE = {"height": 32, "width": 32}


def lfm2_vl(folder: Path) -> None:
    """LFM2-VL: SigLIP 2, which keeps a picture's shape, before short convolutions."""
    marks = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    tokenizer = qwen_tokenizer(*marks.values())
    vision = {**TINY_VISION, "model_type": "siglip2_vision_model", "patch_size": 8, "num_patches": 64}
    config = hf.Lfm2VlConfig(
        vision_config={**vision, "vision_use_head": False},
        text_config=text_config("lfm2", tokenizer, layer_types=["conv", "full_attention"], conv_L_cache=3),
        image_token_id=token_id(tokenizer, "<image>"),
        projector_hidden_size=64,
        downsample_factor=2,
    )
    pictures = hf.Lfm2VlImageProcessor(
        encoder_patch_size=8,
        downsample_factor=2,
        min_image_tokens=4,
        max_image_tokens=16,
        do_image_splitting=False,
        tile_size=64,
        max_num_patches=64,
    )
    processor = hf.Lfm2VlProcessor(pictures, tokenizer, chat_template=chatml(image="<image>"))
    save(folder, hf.Lfm2VlForConditionalGeneration(config), processor)


DEEPSEEK = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
DEEPSEEK_CHAT = chat_template(
    "{{ message['role'] | capitalize }}: ", {"image": "<image_placeholder>"}, "\n\n", "Assistant:"
)


def deepseek_tokenizer() -> Any:
    """Returns the tokenizer of DeepSeek-VL and Janus."""
    special = ["<bos>", "<eos>", "<pad>", *DEEPSEEK.values()]
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return byte_level(PreTrainedTokenizerFast, special, **named, extra_special_tokens=DEEPSEEK)


def deepseek_vl(folder: Path) -> None:
    """DeepSeek-VL: SigLIP before Llama."""
    tokenizer = deepseek_tokenizer()
    config = hf.DeepseekVLConfig(
        vision_config={**SIGLIP, "vision_use_head": False},
        text_config=text_config("llama", tokenizer),
        image_token_id=token_id(tokenizer, "<image_placeholder>"),
    )
    processor = hf.DeepseekVLProcessor(
        hf.DeepseekVLImageProcessor(size=SIDE, min_size=8), tokenizer, chat_template=DEEPSEEK_CHAT, num_image_tokens=16
    )
    save(folder, hf.DeepseekVLForConditionalGeneration(config), processor)


def janus(folder: Path) -> None:
    """Janus: reads pictures with a tower and could draw them with a codebook."""
    tokenizer = deepseek_tokenizer()
    vision = {**TINY_VISION, "image_size": 32, "patch_size": 8, "projection_dim": 32, "num_image_tokens": 16}
    codebook = {
        "embed_dim": 8,
        "num_embeddings": 32,
        "latent_channels": 8,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "num_patches": 4,
        "projection_dim": 32,
        "image_token_embed_dim": 32,
    }
    config = hf.JanusConfig(
        vision_config=vision,
        vq_config=codebook,
        text_config=text_config("llama", tokenizer),
        image_token_id=token_id(tokenizer, "<image_placeholder>"),
    )
    pictures = hf.JanusImageProcessor(size=SIDE, min_size=8)
    processor = hf.JanusProcessor(pictures, tokenizer, chat_template=DEEPSEEK_CHAT, num_image_tokens=16)
    save(folder, hf.JanusForConditionalGeneration(config), processor)


def kosmos2(folder: Path) -> None:
    """Kosmos-2: pictures in a document, phrases with places in them."""
    tokenizer = unigram(hf.XLMRobertaTokenizer, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    pictures = hf.CLIPImageProcessor(**SQUARE)
    processor = hf.Kosmos2Processor(pictures, tokenizer)
    config = hf.Kosmos2Config(
        text_config={
            "vocab_size": len(tokenizer),
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 64,
            "attention_heads": 4,
            "max_position_embeddings": 512,
        },
        vision_config={**TINY_VISION, "image_size": 32, "patch_size": 8},
        latent_query_num=64,
    )
    save(folder, hf.Kosmos2ForConditionalGeneration(config), processor)


CODEBOOK = {
    "embed_dim": 16,
    "num_embeddings": 32,
    "latent_channels": 16,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 2],
    "num_res_blocks": 1,
    "resolution": 32,
}


def chameleon(folder: Path) -> None:
    """Chameleon: a picture becomes words of a codebook."""
    codes = [f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(number))}Z" for number in range(32)]
    own = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "<racm3:break>", "<eoss>", "<reserved08706>"]
    tokenizer = byte_level(
        PreTrainedTokenizerFast,
        [*own, *codes],
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        sep_token="<reserved08706>",
    )
    text = text_config("chameleon", tokenizer, num_key_value_heads=4)
    config = hf.ChameleonConfig(
        **{name: value for name, value in text.items() if name != "model_type"},
        vq_config=CODEBOOK,
        vocabulary_map={
            "<image>": token_id(tokenizer, "<image>"),
            **{code: token_id(tokenizer, code) for code in codes},
        },
    )
    pictures = hf.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=SIDE)
    processor = hf.ChameleonProcessor(pictures, tokenizer, image_seq_length=64)
    save(folder, hf.ChameleonForConditionalGeneration(config), processor)


def glm_parts(tokenizer: Any) -> dict[str, int]:
    """Returns a config's names of GLM's vision tokens."""
    return {
        "image_token_id": token_id(tokenizer, "<|image|>"),
        "video_token_id": token_id(tokenizer, "<|video|>"),
        "image_start_token_id": token_id(tokenizer, "<|begin_of_image|>"),
        "image_end_token_id": token_id(tokenizer, "<|end_of_image|>"),
        "video_start_token_id": token_id(tokenizer, "<|begin_of_video|>"),
        "video_end_token_id": token_id(tokenizer, "<|end_of_video|>"),
    }


GLM_CHAT = chat_template(
    "<|user|>\n",
    {
        "image": "<|begin_of_image|><|image|><|end_of_image|>",
        "video": "<|begin_of_video|><|video|><|end_of_video|>",
    },
    "",
    "<|assistant|>\n",
    start="[gMASK]<sop>",
)
GLM_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 32,
    "num_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "spatial_merge_size": 2,
}
GLM_SIZE = {"shortest_edge": 16 * 16 * 2, "longest_edge": 64 * 64 * 2}


def glm_tokenizer() -> Any:
    """Returns the tokenizer of GLM's vision models."""
    sides = ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"]
    places = [f"<|{side}_of_{kind}|>" for kind in ("image", "video") for side in ("begin", "end")]
    special = [*sides, *places, "<|image|>", "<|video|>"]
    return byte_level(PreTrainedTokenizerFast, special, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def glm_processor(tokenizer: Any, kind: Any, video: Any) -> Any:
    """Returns a processor that cuts pictures into patches of 8 pixels."""
    return kind(
        hf.Glm4vImageProcessor(patch_size=8, size=GLM_SIZE)
        if kind is hf.Glm4vProcessor
        else hf.Glm46VImageProcessor(patch_size=8, size=GLM_SIZE),
        tokenizer,
        video(patch_size=8, size=GLM_SIZE),
        chat_template=GLM_CHAT,
    )


GLM_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "partial_rotary_factor": 1.0}


def glm4v(folder: Path) -> None:
    """GLM-4.1V."""
    tokenizer = glm_tokenizer()
    config = hf.Glm4vConfig(
        vision_config=GLM_VISION,
        text_config=text_config("glm4v_text", tokenizer, rope_parameters=GLM_ROPE),
        **glm_parts(tokenizer),
    )
    processor = glm_processor(tokenizer, hf.Glm4vProcessor, hf.Glm4vVideoProcessor)
    save(folder, hf.Glm4vForConditionalGeneration(config), processor)


def glm46v(folder: Path) -> None:
    """GLM-4.6V."""
    tokenizer = glm_tokenizer()
    config = hf.Glm46VConfig(
        vision_config={**GLM_VISION, "model_type": "glm4v_vision"},
        text_config=text_config("glm4v_text", tokenizer, rope_parameters=GLM_ROPE),
        **glm_parts(tokenizer),
    )
    processor = glm_processor(tokenizer, hf.Glm46VProcessor, hf.Glm46VVideoProcessor)
    save(folder, hf.Glm46VForConditionalGeneration(config), processor)


def by_kosmos(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Kosmos-2 and takes the places out of its answer, as its processor does."""
    found = by_text("<grounding>{prompt}")(folder, data)
    caption, _ = hf.AutoProcessor.from_pretrained(folder).post_process_generation(found.answer)
    return Outcome(caption, found.numbers)


CASES = [
    vlm("Lfm2VlForConditionalGeneration", lfm2_vl, by_chat),
    vlm("DeepseekVLForConditionalGeneration", deepseek_vl, by_chat),
    vlm("JanusForConditionalGeneration", janus, by_chat),
    vlm("Kosmos2ForConditionalGeneration", kosmos2, by_kosmos),
    vlm("ChameleonForConditionalGeneration", chameleon, by_text("{prompt}<image>")),
    vlm("Glm4vForConditionalGeneration", glm4v, by_chat),
    vlm("Glm46VForConditionalGeneration", glm46v, by_chat),
]
NOT_TRIED = {
    ("vlm", "FuyuForCausalLM"): "its processor counts on how one released tokenizer sets blanks before special tokens",
}
