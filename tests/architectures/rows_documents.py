"""Rows of the task document-analysis: models that mark words, and models that look at pages and write."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
import transformers as hf
from PIL import Image, ImageFont
from transformers.models.pix2struct import image_processing_pix2struct

from tests.architectures.case import GREEDY, Case, Outcome, with_field
from tests.architectures.pdf_pages import pdf_uri, read_pages
from tests.architectures.rows_ocr import donut
from tests.architectures.rows_vision_idefics import idefics3, smolvlm
from tests.architectures.rows_vision_llava import llava, llava_next
from tests.architectures.rows_vision_qwen import qwen2_5_vl, qwen2_vl, qwen3_vl
from tests.architectures.rows_vision_tiles import internvl
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import TINY_VISION, byte_level, save, settle, unigram, word_pieces
from tests.architectures.vision_cases import Build, Direct, document, document_by_chat, load, trimmed, vlm

LAYOUT = {**TINY_VISION, "max_position_embeddings": 128, "max_2d_position_embeddings": 1024}


def layoutlm(folder: Path) -> None:
    """LayoutLM: words with their boxes."""
    tokenizer = word_pieces(hf.BertTokenizer)
    config = hf.LayoutLMConfig(vocab_size=len(tokenizer), **LAYOUT)
    settle(hf.LayoutLMForQuestionAnswering(config), gain=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def layoutlmv3(folder: Path) -> None:
    """LayoutLMv3: words, boxes and the page's picture."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = byte_level(hf.LayoutLMv3Tokenizer, special)
    config = hf.LayoutLMv3Config(
        vocab_size=len(tokenizer), **LAYOUT, coordinate_size=6, shape_size=4, input_size=32, patch_size=8
    )
    pictures = hf.LayoutLMv3ImageProcessor(size={"height": 32, "width": 32}, apply_ocr=False)
    settle(hf.LayoutLMv3ForQuestionAnswering(config), gain=4).save_pretrained(folder)
    hf.LayoutLMv3Processor(pictures, tokenizer).save_pretrained(folder)


def by_layoutlm(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks LayoutLM as its documentation does: the question's words have no place, separators the farthest."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    ((_, words, boxes),) = read_pages(data["document"])
    asked = data["query"].split()
    inputs = tokenizer(asked, words, is_split_into_words=True, return_token_type_ids=True, return_tensors="pt")
    places = []
    for token, part, word in zip(inputs.input_ids[0], inputs.sequence_ids(0), inputs.word_ids(0), strict=True):
        end = [1000] * 4 if token == tokenizer.sep_token_id else [0] * 4
        places.append(boxes[word] if part == 1 else end)
    inputs["bbox"] = torch.tensor([places])
    return marked(folder, inputs, words)


def by_layoutlmv3(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks LayoutLMv3 with its processor."""
    processor = hf.AutoProcessor.from_pretrained(folder)
    ((image, words, boxes),) = read_pages(data["document"])
    inputs = processor(Image.fromarray(image), data["query"], words, boxes=boxes, return_tensors="pt")
    return marked(folder, inputs, words)


def marked(folder: Path, inputs: Any, words: list[str]) -> Outcome:
    """Returns the likeliest words, and how likely their first and last tokens are among those of the page."""
    model = hf.AutoModelForDocumentQuestionAnswering.from_pretrained(folder).eval()
    of_page = [place for place, part in enumerate(inputs.sequence_ids(0)) if part == 1]
    named = inputs.word_ids(0)
    with torch.inference_mode():
        output = model(**inputs)
    starts, ends = output.start_logits[0, of_page].softmax(-1), output.end_logits[0, of_page].softmax(-1)
    together = torch.triu(starts[:, None] * ends[None, :])
    first, last = divmod(int(together.argmax()), len(of_page))
    span = words[named[of_page[first]] : named[of_page[last]] + 1]
    return Outcome(" ".join(span), [float(together.max())])


def layout(
    architecture: str, build: Build, direct: Direct, *, options: Mapping[str, Any] | None = None, quick: bool = False
) -> Case:
    """Returns a row that reads the words of a page of a PDF."""
    lines, other = ["Invoice 4711", "Date 12 May", "Total 93.50 euro"], ["Invoice 38", "Date 7 June", "Sum 11.25 euro"]
    return Case(
        architecture,
        "document-analysis",
        build,
        lambda: {"document": pdf_uri(lines), "query": "what is the total?"},
        {
            "page": with_field("document", lambda: pdf_uri(other)),
            "prompt": with_field("query", lambda: "which date is it?"),
        },
        direct,
        options=options or {},
        quick=quick,
    )


def udop(folder: Path) -> None:
    """UDOP: reads words at their places beside the picture, and writes."""
    tokenizer = unigram(hf.UdopTokenizer, ["<pad>", "</s>", "<unk>"])
    config = hf.UdopConfig(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, image_size=32, patch_size=8
    )
    model = hf.UdopForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 0
    pictures = hf.LayoutLMv3ImageProcessor(size={"height": 32, "width": 32}, apply_ocr=False)
    save(folder, model, hf.UdopProcessor(pictures, tokenizer), gain=4)


def by_udop(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks UDOP with the prefix that it was trained with."""
    model, processor = load(folder, hf.UdopForConditionalGeneration)
    ((image, words, boxes),) = read_pages(data["document"])
    asked = f"Question answering. {data['query']}"
    inputs = processor(Image.fromarray(image), asked, text_pair=words, boxes=boxes, return_tensors="pt")
    return trimmed(generated(model, processor.tokenizer, inputs, skip=1))


def donut_docvqa(folder: Path) -> None:
    """Donut made for questions about documents."""
    donut(folder, "<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>")


def by_donut(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Donut: the question stands in what its answer begins with."""
    model, processor = load(folder, hf.VisionEncoderDecoderModel)
    prompt = f"<s_docvqa><s_question>{data['query']}</s_question><s_answer>"
    start = processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    pixels = processor(Image.fromarray(data["document"].pages[0]), return_tensors="pt").pixel_values
    found = generated(
        model, processor.tokenizer, {"pixel_values": pixels, "decoder_input_ids": start}, skip=start.shape[1]
    )
    return Outcome(re.sub(r"<[^>]*>", "", str(found.answer)).strip(), found.numbers)


def pix2struct(folder: Path) -> None:
    """Pix2Struct made for questions: the question is drawn above the page."""
    tokenizer = unigram(hf.T5Tokenizer, ["<pad>", "</s>", "<unk>"], extra_ids=0)
    half = {"hidden_size": 32, "d_kv": 8, "d_ff": 64}
    config = hf.Pix2StructConfig(
        text_config={**half, "vocab_size": len(tokenizer), "num_layers": 2, "num_heads": 4, "use_cache": True},
        vision_config={**half, "patch_embed_hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4},
        is_vqa=True,
    )
    config.vision_config.seq_len = 256
    pictures = hf.Pix2StructImageProcessor(is_vqa=True, max_patches=64)
    model = hf.Pix2StructForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 0
    processor = hf.Pix2StructProcessor(pictures, tokenizer)
    save(folder, model, processor)


def by_pix2struct(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Pix2Struct about a document's one page."""
    return drawn_question(folder, data["document"].pages[0], data["query"])


def drawn_question(folder: Path, pixels: Any, question: str) -> Outcome:
    """Asks Pix2Struct: its image processor draws the question, here in Pillow's font, where it would fetch Arial."""
    model, processor = load(folder)
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(36))
    drawn = partial(image_processing_pix2struct.render_text, font_bytes=font.font_bytes)
    with patch.object(image_processing_pix2struct, "render_text", lambda text, **_: drawn(text)):
        inputs = processor(images=Image.fromarray(pixels), text=question, return_tensors="pt")
    return generated(model, processor.tokenizer, inputs, skip=1)


CASES = [
    layout("LayoutLMForQuestionAnswering", layoutlm, by_layoutlm, quick=True),
    layout("LayoutLMv3ForQuestionAnswering", layoutlmv3, by_layoutlmv3),
    layout("UdopForConditionalGeneration", udop, by_udop, options=GREEDY),
    document("VisionEncoderDecoderModel", donut_docvqa, by_donut),
    document("Pix2StructForConditionalGeneration", pix2struct, by_pix2struct),
    document("LlavaForConditionalGeneration", llava, document_by_chat, quick=True),
    document("LlavaNextForConditionalGeneration", llava_next, document_by_chat),
    document("Qwen2VLForConditionalGeneration", qwen2_vl, document_by_chat),
    document("Qwen2_5_VLForConditionalGeneration", qwen2_5_vl, document_by_chat),
    document("Qwen3VLForConditionalGeneration", qwen3_vl, document_by_chat),
    document("Idefics3ForConditionalGeneration", idefics3, document_by_chat),
    document("SmolVLMForConditionalGeneration", smolvlm, document_by_chat),
    document("InternVLForConditionalGeneration", internvl, document_by_chat),
]
CASES += [
    vlm(
        "Pix2StructForConditionalGeneration",
        pix2struct,
        lambda folder, data: drawn_question(folder, data["image"], data["prompt"]),
    )
]
NOT_TRIED = {
    ("document-analysis", "LayoutLMv2ForQuestionAnswering"): "its vision tower is detectron2's, not installed",
}
