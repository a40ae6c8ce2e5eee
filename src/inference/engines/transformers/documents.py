"""Document analysis with models that look at pages and write: each page is asked by itself, the surest answer counts.

How sure: the mean log-probability of the answer's tokens. All pages at once would multiply a prompt by their number,
few models take that many pictures, and none would tell on which page it read the answer.
"""

import math
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image, ImageFont
from transformers import AutoConfig

from src.core.errors import ModelLoadError
from src.inference.engines.transformers.document_qa import ordered_boxes, unread_pages
from src.inference.engines.transformers.generation import EXACT, Generator, Prompt, option_warnings
from src.inference.engines.transformers.vision_language import VisionLanguageRunner
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps", "num_frames", "fps")
_CANDIDATES = 10
# An A4 page is so many inches high.
_PAGE_INCHES = 11.7
_QUESTION = "<s_docvqa>"
# UDOP's positions are relative, so only memory bounds a page.
_MOST_TOKENS = 4096


class PageRunner(VisionLanguageRunner):
    """A model that is shown a page and asked the question."""

    @classmethod
    def load(cls, name: str, path: Path, **kwargs: Any) -> Self:
        """Loads a folder, an architecture with a way of its own as such."""
        if cls is not PageRunner:
            return super().load(name, path, **kwargs)
        config = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=kwargs.get("trust_remote_code", False)
        )
        own: dict[str, Any] = {"vision-encoder-decoder": DonutRunner, "udop": UdopRunner}
        runner: Self = (
            own[config.model_type].load(name, path, **kwargs)
            if config.model_type in own
            else super().load(name, path, **kwargs)
        )
        return runner

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the processor; Pix2Struct's draws questions with a font that is here."""
        processor = super().load_processor(path, **kwargs)
        pictures = processor.image_processor
        if hasattr(pictures, "render_header"):
            draw, font = pictures.render_header, _font(path)
            # Left to itself it would fetch one from the hub.
            pictures.render_header = lambda image, header, **_: draw(image, header, font_bytes=font)
        return processor

    @property
    def media(self) -> JsonObject:
        """Pictures of the pages, no words."""
        return {"needs_words": False, "needs_images": True}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the answer of the surest page; `inputs`: `query` and `pages`."""
        pages = inputs["pages"]
        asked, warnings = _one_answer(options, len(pages))
        read = [_scored(page, self.answer_page(inputs["query"], page, asked)) for page in pages]
        # Silence, however sure, is no answer while another page has one.
        ranked = sorted(read, key=lambda item: (bool(item["response"]), item["score"] or 0.0), reverse=True)
        best: JsonObject = ranked[0]
        if not options.get("logprobs"):
            best["metadata"].pop("logprobs", None)
        candidates = [
            {"page": item["page"], "answer": item["response"], "score": item["score"]} for item in ranked[:_CANDIDATES]
        ]
        best["metadata"] |= {"pages": [page["number"] for page in pages], "candidates": candidates}
        best["warnings"] = list(dict.fromkeys([*best["warnings"], *warnings]))
        return best

    def answer_page(self, query: str, page: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the raw answer that a page gives."""
        raw: JsonObject = self.ask(query, options, images=[page["image"]], defaults=EXACT)
        raw["response"] = raw["response"].strip()
        return raw


class DonutRunner(PageRunner):
    """Donut made for questions about documents: the prompt holds the question, the answer is a tagged field."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        if _QUESTION not in self.tokenizer.get_vocab():
            raise ModelLoadError(
                f"Model '{name}' has no token {_QUESTION}: it was not made for questions about documents, so take "
                "a Donut that was (docvqa), or task 'ocr'"
            )

    @property
    def media(self) -> JsonObject:
        """Pages in the resolution that the model sees."""
        size = self.processor.image_processor.size
        pixels = max(int(size[side]) for side in ("height", "width"))
        return {**super().media, "dpi": float(min(300, max(72, round(pixels / _PAGE_INCHES))))}

    def answer_page(self, query: str, page: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the field `answer` that the model fills in."""
        text = f"{_QUESTION}<s_question>{query}</s_question><s_answer>"
        tokens = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        pixels = self.processor.image_processor(Image.fromarray(page["image"]), return_tensors="pt")["pixel_values"]
        inputs = self.to_device({"pixel_values": pixels, "decoder_input_ids": tokens})
        # generate() puts no start token before a Donut's prompt.
        prompt = Prompt(inputs, text_tokens=tokens.shape[1], offset=tokens.shape[1])
        generator = Generator(self.name, self.model, self.tokenizer, defaults=EXACT)
        raw = generator.answer(prompt, options, skip_special_tokens=False)
        raw["response"] = self._field(raw["response"])
        return raw

    def _field(self, text: str) -> str:
        """Returns what the model wrote into its answer, also where its bound cut it short."""
        written = text.partition("</s_answer>")[0].partition(self.tokenizer.eos_token)[0]
        written = written.replace(self.tokenizer.pad_token, "")
        value = self.processor.token2json(f"<s_answer>{written}</s_answer>").get("answer", "")
        return value if isinstance(value, str) else ", ".join(map(str, value))


class UdopRunner(PageRunner):
    """UDOP: reads a page's words at their places beside its picture, and writes."""

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the processor, which is given words and reads none by itself."""
        processor = super().load_processor(path, **kwargs)
        processor.image_processor.apply_ocr = False
        return processor

    @property
    def media(self) -> JsonObject:
        """Pictures of the pages and their words."""
        return {"needs_words": True, "needs_images": True}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Reads a page of one word."""
        page = {"words": ("a",), "boxes": [[0, 0, 9, 9]], "image": np.full((32, 32, 3), 255, np.uint8), "number": 0}
        self.answer_page("a", page, {"max_new_tokens": 1})

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the answer of the surest page; raises `InvalidInputError` where no page has words."""
        warnings = unread_pages(inputs["pages"])
        raw: JsonObject = super().run(inputs, options)
        nowhere = {} if any(page["words"] for page in inputs["pages"]) else {"score": 0.0, "page": None}
        return {**raw, **nowhere, "warnings": [*raw["warnings"], *warnings]}

    def answer_page(self, query: str, page: JsonObject, options: JsonObject) -> JsonObject:
        """Asks about one page, with the prefix that the model was trained with."""
        if not page["words"]:
            return {"response": "", "metadata": {"model": self.name}, "warnings": []}
        encoded = self.processor(
            Image.fromarray(page["image"]),
            f"Question answering. {query}",
            text_pair=list(page["words"]),
            boxes=ordered_boxes(page),
            truncation="only_second",
            max_length=_MOST_TOKENS,
            return_tensors="pt",
        )
        tokens = int(encoded["input_ids"].shape[1])
        generator = Generator(self.name, self.model, self.tokenizer, defaults=EXACT)
        raw = generator.answer(Prompt(self.to_device(encoded), text_tokens=tokens, offset=1), options)
        raw["response"] = raw["response"].strip()
        if tokens == _MOST_TOKENS:
            raw["warnings"].append(f"page {page['number']} has more than {tokens} tokens: its end was not read")
        return raw


def _font(folder: Path) -> bytes:
    """Returns the first font in a model's folder (Pix2Struct was trained with Arial), else Pillow's own."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".ttf", ".otf"):
            return file.read_bytes()
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(36)).font_bytes


def _one_answer(options: JsonObject, pages: int) -> tuple[JsonObject, list[str]]:
    """Returns the options for one scored answer of each page, and warnings for those that cannot be."""
    asked = dict(options)
    unused = ["num_return_sequences"] if asked.pop("num_return_sequences", 1) > 1 else []
    if pages > 1 and asked.get("num_beams", 1) > 1:
        # The sums of beams cannot be compared between pages.
        asked.pop("num_beams")
        unused.append("num_beams")
    warnings = option_warnings(options, "document-analysis", (*_NO_EFFECT, *unused))
    return asked | ({"logprobs": True} if asked.get("num_beams", 1) == 1 else {}), warnings


def _scored(page: JsonObject, raw: JsonObject) -> JsonObject:
    found = raw["metadata"].get("logprobs")
    return {**raw, "page": page["number"], "score": math.exp(sum(found) / len(found)) if found else None}
