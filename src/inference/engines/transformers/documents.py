"""Document analysis with models that look at pages and write: each page is asked by itself, the surest answer counts.

How sure: the mean log-probability of the answer's tokens. All pages at once would multiply a prompt by their number,
few models take that many pictures, and none would tell on which page it read the answer.
"""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from PIL import ImageFont
from transformers import AutoConfig

from src.inference.engines.transformers.answer_pieces import Said, told
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.generation import EXACT, Prompt, option_warnings
from src.inference.engines.transformers.vision_language import VisionLanguageRunner
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps", "num_frames", "fps")
_CANDIDATES = 10
_HERE = "src.inference.engines.transformers.document_writers"
_OWN = {"vision-encoder-decoder": f"{_HERE}:DonutRunner", "udop": f"{_HERE}:UdopRunner"}
"""Model type → the runner of an architecture that is asked in a way of its own."""
# Pages that are read together: each may be thousands of tokens.
_TOGETHER = 8


class PageRunner(VisionLanguageRunner):
    """A model that is shown a page and asked the question."""

    defaults = EXACT
    skips_marks: ClassVar[bool] = True
    """Whether special tokens are left out of what the model writes."""

    @classmethod
    def load(cls, name: str, path: Path, **kwargs: Any) -> Self:
        """Loads a folder, an architecture with a way of its own as such."""
        if cls is not PageRunner:
            return super().load(name, path, **kwargs)
        config = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=kwargs.get("trust_remote_code", False)
        )
        if config.model_type not in _OWN:
            return super().load(name, path, **kwargs)
        module, _, runner = _OWN[config.model_type].partition(":")
        found: Self = getattr(importlib.import_module(module), runner).load(name, path, **kwargs)
        return found

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

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the answer of the surest page; `inputs`: `query` and `pages`."""
        pages, notes = inputs["pages"], self.notes(inputs["pages"])
        asked, warnings = _one_answer(options, len(pages))
        pieces = told()
        # Which page counts is known when all are read; a page alone is told as it goes.
        said = pieces.upto if pieces is not None and self.skips_marks and len(pages) == 1 else None
        raw = self.surest(pages, [self.answer_page(inputs["query"], page, asked, said) for page in pages], options)
        if pieces is not None:
            pieces.finish(raw["response"])
        return _warned(raw, warnings, notes)

    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Returns the answer of the surest page of each document; pages of all documents are read together."""
        asked, warnings = _one_answer(options, 1)
        notes = [attempted(self.notes, each["pages"]) for each in inputs]
        legible = [each for each, note in zip(inputs, notes, strict=True) if not isinstance(note, Exception)]
        read = iter(self.answer_pages([(each["query"], page) for each in legible for page in each["pages"]], asked))
        return [
            note
            if isinstance(note, Exception)
            else attempted(self._document, each["pages"], [next(read) for _ in each["pages"]], options, warnings, note)
            for each, note in zip(inputs, notes, strict=True)
        ]

    def _document(
        self,
        pages: Sequence[JsonObject],
        read: Sequence[JsonObject | Exception],
        options: JsonObject,
        warnings: Sequence[str],
        notes: Sequence[str],
    ) -> JsonObject:
        """Returns the answer that several pages give, or raises the error that one of them met."""
        answers = list[JsonObject]()
        for one in read:
            if isinstance(one, Exception):
                raise one
            answers.append(one)
        return _warned(self.surest(pages, answers, options), warnings, notes)

    def notes(self, pages: Sequence[JsonObject]) -> list[str]:
        """Returns warnings about pages; raises `InvalidInputError` where the model can read none of them."""
        return []

    def surest(self, pages: Sequence[JsonObject], read: Sequence[JsonObject], options: JsonObject) -> JsonObject:
        """Returns the answer that counts, with the others as candidates."""
        scored = [_scored(page, raw) for page, raw in zip(pages, read, strict=True)]
        # Silence, however sure, is no answer while another page has one.
        ranked = sorted(scored, key=lambda item: (bool(item["response"]), item["score"] or 0.0), reverse=True)
        best: JsonObject = ranked[0]
        if not options.get("logprobs"):
            best["metadata"].pop("logprobs", None)
        candidates = [
            {"page": item["page"], "answer": item["response"], "score": item["score"]} for item in ranked[:_CANDIDATES]
        ]
        best["metadata"] |= {"pages": [page["number"] for page in pages], "candidates": candidates}
        return best

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def answer_page(self, query: str, page: JsonObject, options: JsonObject, said: Said | None = None) -> JsonObject:
        """Returns the raw answer that a page gives."""
        prompt = self.page_prompt(query, page)
        if prompt is None:
            return self._answered(None, page, None)
        raw = self.written(prompt, options, skip_special_tokens=self.skips_marks, said=said)
        return self._answered(raw, page, prompt)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def answer_pages(
        self, asked: Sequence[tuple[str, JsonObject]], options: JsonObject
    ) -> list[JsonObject | Exception]:
        """Returns what `answer_page` returns or raises for each query and page."""
        found = list[JsonObject | Exception]()
        for begin in range(0, len(asked), _TOGETHER):
            pages = asked[begin : begin + _TOGETHER]
            prompts = [attempted(self.page_prompt, query, page) for query, page in pages]
            legible = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
            raws = iter(self.written_together(legible, options, skip_special_tokens=self.skips_marks))
            for prompt, (_, page) in zip(prompts, pages, strict=True):
                raw = next(raws) if isinstance(prompt, Prompt) else prompt
                found.append(raw if isinstance(raw, Exception) else attempted(self._answered, raw, page, prompt))
        return found

    def page_prompt(self, query: str, page: JsonObject) -> Prompt | None:
        """Returns the model's inputs for a page and a question; None where there is nothing to read."""
        return self.encoded(query, [page["image"]])

    def page_answer(self, raw: JsonObject, page: JsonObject, prompt: Prompt) -> JsonObject:
        """Returns what the model wrote as the answer that a page gives."""
        raw["response"] = raw["response"].strip()
        return raw

    def _answered(self, raw: JsonObject | None, page: JsonObject, prompt: Prompt | None) -> JsonObject:
        if raw is None or prompt is None:
            return {"response": "", "metadata": {"model": self.name}, "warnings": []}
        return self.page_answer(raw, page, prompt)


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


def _warned(raw: JsonObject, warnings: Sequence[str], notes: Sequence[str]) -> JsonObject:
    return {**raw, "warnings": [*dict.fromkeys([*raw["warnings"], *warnings]), *notes]}
