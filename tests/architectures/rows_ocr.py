"""Rows of the task ocr: models made for reading, and some that can be asked to."""

from pathlib import Path
from typing import Any

import transformers as hf
from PIL import Image

from tests.architectures.case import Outcome
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import (
    TINY_VISION,
    byte_level,
    qwen_tokenizer,
    save,
    text_config,
    token_id,
    unigram,
)
from tests.architectures.vision_cases import load, ocr

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def trocr(folder: Path) -> None:
    """TrOCR: ViT reads a line, a decoder writes it."""
    tokenizer = byte_level(hf.RobertaTokenizer, SPECIAL)
    encoder = hf.ViTConfig(**TINY_VISION, image_size=32, patch_size=8)
    decoder = hf.TrOCRConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        cross_attention_hidden_size=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    processor = hf.TrOCRProcessor(hf.ViTImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    pair = hf.VisionEncoderDecoderModel(hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    start_with(pair, tokenizer, tokenizer.eos_token_id)
    save(folder, pair, processor)


def donut(folder: Path, start: str = "<s_cord-v2>", *more: str) -> None:
    """Donut: Swin reads a page, BART writes fields between tags."""
    extra = [start, start.replace("<s_", "</s_"), "<s_total>", "</s_total>", "<sep/>", *more]
    tokenizer = unigram(hf.XLMRobertaTokenizer, SPECIAL, extra=extra)
    encoder = hf.DonutSwinConfig(
        image_size=[64, 64], patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    decoder = hf.MBartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=512,
        add_final_layer_norm=True,
        scale_embedding=True,
        is_decoder=True,
        add_cross_attention=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pictures = hf.DonutImageProcessor(size={"height": 64, "width": 64}, do_align_long_axis=False)
    pair = hf.VisionEncoderDecoderModel(hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    start_with(pair, tokenizer, token_id(tokenizer, start))
    save(folder, pair, hf.DonutProcessor(pictures, tokenizer), gain=4)


def start_with(pair: Any, tokenizer: Any, start: int) -> None:
    """Has a pair's answers start with a token, as its released config does."""
    for config in (pair.config, pair.generation_config):
        config.decoder_start_token_id = start
        config.pad_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id


def by_writing(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks an encoder and a decoder of text: the picture alone."""
    model, processor = load(folder)
    pixels = processor(images=Image.fromarray(data["image"]), return_tensors="pt").pixel_values
    return generated(model, processor.tokenizer, {"pixel_values": pixels}, skip=1)


def by_donut(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Donut with the token that its answer begins with."""
    model, processor = load(folder, hf.VisionEncoderDecoderModel)
    start = processor.tokenizer("<s_cord-v2>", add_special_tokens=False, return_tensors="pt").input_ids
    pixels = processor(Image.fromarray(data["image"]), return_tensors="pt").pixel_values
    inputs = {"pixel_values": pixels, "decoder_input_ids": start}
    found = generated(model, processor.tokenizer, inputs, skip=start.shape[1])
    return Outcome(found.answer, found.numbers)


FLORENCE = {"image_token": "<image>"}


def florence2(folder: Path) -> None:
    """Florence-2: DaViT before BART; a token names the task."""
    places = [f"<loc_{number}>" for number in range(1000)]
    tokenizer = byte_level(hf.RobertaTokenizer, SPECIAL, extra=["<image>", *places], extra_special_tokens=FLORENCE)
    config = hf.Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 512,
            "forced_eos_token_id": None,
        },
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 4],
            "num_groups": [2, 4],
            "window_size": 4,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        image_token_id=token_id(tokenizer, "<image>"),
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    pictures = hf.CLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, crop_size={"height": 32, "width": 32}
    )
    pictures.image_seq_length = 17
    processor = hf.Florence2Processor(pictures, tokenizer, num_additional_image_tokens=1)
    save(folder, hf.Florence2ForConditionalGeneration(config), processor, gain=3)


def by_florence(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks with the task token; the processor takes the places out of the answer."""
    model, processor = load(folder)
    image = Image.fromarray(data["image"])
    inputs = processor(text=data["prompt"], images=image, return_tensors="pt")
    return generated(model, processor.tokenizer, inputs, skip=1)


def got_ocr2(folder: Path) -> None:
    """GOT-OCR 2: a tower made for text before Qwen2."""
    tokenizer = qwen_tokenizer("<img>", "</img>", "<imgpad>")
    config = hf.GotOcr2Config(
        vision_config={
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_dim": 64,
            "image_size": 1024,
            "patch_size": 16,
            "window_size": 14,
            "global_attn_indexes": [1],
        },
        text_config=text_config("qwen2", tokenizer),
        image_token_index=token_id(tokenizer, "<imgpad>"),
    )
    processor = hf.GotOcr2Processor(hf.GotOcr2ImageProcessor(size={"height": 1024, "width": 1024}), tokenizer)
    save(folder, hf.GotOcr2ForConditionalGeneration(config), processor)


def by_picture(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks GOT-OCR 2: its processor writes the prompt by itself."""
    model, processor = load(folder)
    inputs = processor(Image.fromarray(data["image"]), return_tensors="pt")
    return generated(model, processor.tokenizer, inputs, skip=inputs["input_ids"].shape[1])


CASES = [
    ocr("VisionEncoderDecoderModel", trocr, by_writing, quick=True),
    ocr("VisionEncoderDecoderModel-Donut", donut, by_donut),
    ocr("Florence2ForConditionalGeneration", florence2, by_florence, prompt="<OCR>"),
    ocr("GotOcr2ForConditionalGeneration", got_ocr2, by_picture),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
