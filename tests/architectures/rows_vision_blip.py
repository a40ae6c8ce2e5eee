"""Rows of BLIP and its kin, and of others that have no chat template."""

from pathlib import Path

import transformers as hf

from tests.architectures.vision_builders import (
    SQUARE,
    TINY_VISION,
    byte_level,
    llama_tokenizer,
    save,
    text_config,
    token_id,
    word_pieces,
)
from tests.architectures.vision_cases import by_text, vlm

VISION = {**TINY_VISION, "image_size": 32, "patch_size": 8}
QFORMER = {**TINY_VISION, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
SIZE = {"size": {"height": 32, "width": 32}}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 512}


def blip2(folder: Path) -> None:
    """BLIP-2: queries ask the picture, OPT answers."""
    tokenizer = byte_level(hf.GPT2Tokenizer, ["<pad>", "</s>"], bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    processor = hf.Blip2Processor(hf.BlipImageProcessor(**SIZE), tokenizer, num_query_tokens=4)
    config = hf.Blip2Config(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=text_config("opt", tokenizer, **OPT),
        num_query_tokens=4,
        image_token_index=token_id(tokenizer, "<image>"),
    )
    save(folder, hf.Blip2ForConditionalGeneration(config), processor)


def instructblip(folder: Path) -> None:
    """InstructBLIP: its queries read the prompt too."""
    tokenizer = llama_tokenizer()
    words = word_pieces(hf.BertTokenizer)
    processor = hf.InstructBlipProcessor(hf.BlipImageProcessor(**SIZE), tokenizer, words, num_query_tokens=4)
    config = hf.InstructBlipConfig(
        vision_config=VISION,
        qformer_config={**QFORMER, "vocab_size": len(words)},
        text_config=text_config("llama", tokenizer),
        num_query_tokens=4,
        image_token_index=token_id(tokenizer, "<image>"),
    )
    save(folder, hf.InstructBlipForConditionalGeneration(config), processor)


def blip(folder: Path) -> None:
    """BLIP: a caption that goes on after the prompt."""
    tokenizer = word_pieces(hf.BertTokenizer)
    text = {
        **TINY_VISION,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    config = hf.BlipConfig(text_config=text, vision_config={**VISION, "projection_dim": 32}, projection_dim=32)
    processor = hf.BlipProcessor(hf.BlipImageProcessor(**SIZE), tokenizer)
    save(folder, hf.BlipForConditionalGeneration(config), processor)


def git(folder: Path) -> None:
    """GIT: one decoder that reads the picture and the prompt."""
    tokenizer = word_pieces(hf.BertTokenizer)
    config = hf.GitConfig(
        vision_config=VISION,
        **TINY_VISION,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    save(folder, hf.GitForCausalLM(config), hf.GitProcessor(hf.CLIPImageProcessor(**SQUARE), tokenizer))


CASES = [
    vlm("Blip2ForConditionalGeneration", blip2, by_text("Question: {prompt} Answer:"), quick=True),
    vlm("InstructBlipForConditionalGeneration", instructblip, by_text("{prompt}")),
    # BLIP's generate drops the separator behind the prompt.
    vlm("BlipForConditionalGeneration", blip, by_text("{prompt}", short=1)),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
