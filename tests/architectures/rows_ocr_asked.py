"""Rows of the task ocr: vision-language models made for documents, and general ones that are asked for the text."""

from pathlib import Path
from typing import Any

import transformers as hf
from PIL import Image

from tests.architectures.case import Outcome
from tests.architectures.rows_vision_idefics import idefics3, smol_tokenizer
from tests.architectures.rows_vision_llava import llava
from tests.architectures.rows_vision_more import GLM_CHAT, GLM_ROPE, GLM_SIZE, GLM_VISION, glm_parts, glm_tokenizer
from tests.architectures.rows_vision_qwen import qwen2_5_vl, qwen2_vl
from tests.architectures.rows_vision_tiles import PIXTRAL, internvl
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import (
    TINY_VISION,
    byte_fallback,
    chat_template,
    chatml,
    qwen_tokenizer,
    save,
    text_config,
    token_id,
    unigram,
)
from tests.architectures.vision_cases import Direct, chat, load, ocr, trimmed

ASK = "Read the text in this picture. Answer with the text alone, line by line."
"""What the service asks a model with that has no words of its own."""


def asked(words: str) -> Direct:
    """Returns a direct call that asks with words by the chat template."""

    def direct(folder: Path, data: dict[str, Any]) -> Outcome:
        found = chat(folder, [{"type": "image", "image": Image.fromarray(data["image"])}], words)
        return trimmed(found)

    return direct


def glm_ocr(folder: Path) -> None:
    """GLM-OCR: GLM-V's towers, smaller."""
    tokenizer = glm_tokenizer()
    rope = {**GLM_ROPE, "mrope_section": [1, 1, 2]}
    config = hf.GlmOcrConfig(
        vision_config=GLM_VISION,
        text_config=text_config("glm_ocr_text", tokenizer, rope_parameters=rope, head_dim=8),
        **glm_parts(tokenizer),
    )
    processor = hf.Glm46VProcessor(
        hf.Glm46VImageProcessor(patch_size=8, size=GLM_SIZE),
        tokenizer,
        hf.Glm46VVideoProcessor(patch_size=8, size=GLM_SIZE),
        chat_template=GLM_CHAT,
    )
    save(folder, hf.GlmOcrForConditionalGeneration(config), processor)


def lighton_ocr(folder: Path) -> None:
    """LightOnOCR: Pixtral's tower before Qwen3."""
    marks = {
        "image_token": "<|image_pad|>",
        "image_break_token": "<|vision_pad|>",
        "image_end_token": "<|vision_end|>",
    }
    tokenizer = qwen_tokenizer(*marks.values())
    tokenizer._set_model_specific_special_tokens(marks)
    config = hf.LightOnOcrConfig(
        vision_config=PIXTRAL,
        text_config=text_config("qwen3", tokenizer, head_dim=8),
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        spatial_merge_size=2,
    )
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8})
    processor = hf.LightOnOcrProcessor(
        pictures, tokenizer, patch_size=8, spatial_merge_size=2, chat_template=chatml(image="<|image_pad|>")
    )
    save(folder, hf.LightOnOcrForConditionalGeneration(config), processor)


def paddleocr_vl(folder: Path) -> None:
    """PaddleOCR-VL: a tower for any shape before Ernie."""
    marks = {"image_token": "<|IMAGE_PLACEHOLDER|>"}
    edges = ["<|IMAGE_START|>", "<|IMAGE_END|>", "<|video_pad|>", "<|begin_of_sentence|>"]
    tokenizer = byte_fallback(
        hf.LlamaTokenizer,
        ["<unk>", "<s>", "</s>"],
        extra=[*edges, *marks.values()],
        pad_token="<unk>",
        extra_special_tokens=marks,
    )
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = hf.PaddleOCRVLConfig(
        vision_config={**TINY_VISION, "image_size": 64, "patch_size": 8, "spatial_merge_size": 2},
        text_config=text_config("paddleocr_vl_text", tokenizer, head_dim=8, rope_parameters=rope),
        image_token_id=token_id(tokenizer, "<|IMAGE_PLACEHOLDER|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|IMAGE_START|>"),
        vision_end_token_id=token_id(tokenizer, "<|IMAGE_END|>"),
    )
    placed = {"image": "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"}
    template = chat_template("User: ", placed, "\n", "Assistant: ", start="<|begin_of_sentence|>")
    pictures = hf.PaddleOCRVLImageProcessor(
        patch_size=8, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    )
    processor = hf.PaddleOCRVLProcessor(pictures, tokenizer, chat_template=template)
    save(folder, hf.PaddleOCRVLForConditionalGeneration(config), processor)


def granite_docling(folder: Path) -> None:
    """Granite Docling: a page as tiles, answered in a language of tags."""
    tokenizer = smol_tokenizer()
    config = hf.GraniteDoclingConfig(
        vision_config={**TINY_VISION, "image_size": 32, "patch_size": 8, "out_hidden_size": 32, "scale_factor": 2},
        text_config=text_config(
            "granite_docling_text",
            tokenizer,
            embedding_multiplier=1.0,
            logits_scaling=1.0,
            residual_multiplier=1.0,
            attention_multiplier=0.35,
        ),
        image_token_id=token_id(tokenizer, "<image>"),
        pad_token_id=tokenizer.pad_token_id,
        density_router_hidden_size=16,
    )
    pictures = hf.GraniteDoclingImageProcessor(size={"height": 32, "width": 32})
    template = chat_template(
        "<|im_start|>ROLE:", {"image": "<image>"}, "<end_of_utterance>\n", "<|im_start|>assistant:"
    )
    processor = hf.GraniteDoclingProcessor(pictures, tokenizer, image_seq_len=4, chat_template=template)
    save(folder, hf.GraniteDoclingForConditionalGeneration(config), processor)


def kosmos2_5(folder: Path) -> None:
    """Kosmos-2.5: flattened patches of a page, a token names the task."""
    marks = {"boi_token": "<image>", "eoi_token": "</image>", "image_token": "<image_soft>"}
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = unigram(
        hf.XLMRobertaTokenizer, special, extra=[*marks.values(), "<ocr>", "<md>"], extra_special_tokens=marks
    )
    config = hf.Kosmos2_5Config(
        text_config={
            "vocab_size": len(tokenizer),
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 64,
            "attention_heads": 4,
            "max_position_embeddings": 512,
        },
        vision_config={
            "hidden_size": 32,
            "patch_embed_hidden_size": 768,
            "intermediate_size": 64,
            "head_dim": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_num_patches": 512,
        },
        latent_query_num=16,
    )
    processor = hf.Kosmos2_5Processor(hf.Kosmos2_5ImageProcessor(max_patches=64), tokenizer, num_image_tokens=16)
    save(folder, hf.Kosmos2_5ForConditionalGeneration(config), processor)


def by_token(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Kosmos-2.5 with the token of its task."""
    model, processor = load(folder, hf.Kosmos2_5ForConditionalGeneration)
    inputs = processor(text="<ocr>", images=Image.fromarray(data["image"]), return_tensors="pt")
    for unused in ("height", "width"):
        inputs.pop(unused, None)
    found = generated(model, processor.tokenizer, inputs, skip=inputs["input_ids"].shape[1])
    return trimmed(found)


CASES = [
    ocr("GlmOcrForConditionalGeneration", glm_ocr, asked("Text Recognition:")),
    ocr("LightOnOcrForConditionalGeneration", lighton_ocr, asked(ASK)),
    ocr("PaddleOCRVLForConditionalGeneration", paddleocr_vl, asked("OCR:")),
    ocr("GraniteDoclingForConditionalGeneration", granite_docling, asked("Convert this page to docling.")),
    ocr("Kosmos2_5ForConditionalGeneration", kosmos2_5, by_token),
    ocr("Qwen2VLForConditionalGeneration", qwen2_vl, asked(ASK)),
    ocr("Qwen2_5_VLForConditionalGeneration", qwen2_5_vl, asked(ASK)),
    ocr("LlavaForConditionalGeneration", llava, asked(ASK)),
    ocr("Idefics3ForConditionalGeneration", idefics3, asked(ASK)),
    ocr("InternVLForConditionalGeneration", internvl, asked(ASK)),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
