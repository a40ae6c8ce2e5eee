"""Document analysis by models that are asked in a way of their own: Donut and UDOP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from src.core.errors import ModelLoadError
from src.inference.engines.transformers.document_qa import ordered_boxes, unread_pages
from src.inference.engines.transformers.documents import PageRunner
from src.inference.engines.transformers.generation import Prompt
from src.inference.types import JsonObject

# An A4 page is so many inches high.
_PAGE_INCHES = 11.7
_QUESTION = "<s_docvqa>"
# UDOP's positions are relative, so only memory bounds a page.
_MOST_TOKENS = 4096


class DonutRunner(PageRunner):
    """Donut made for questions about documents: the prompt holds the question, the answer is a tagged field."""

    skips_marks = False

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

    def page_prompt(self, query: str, page: JsonObject) -> Prompt | None:
        """Returns the page, and the question as the start of what the model writes."""
        text = f"{_QUESTION}<s_question>{query}</s_question><s_answer>"
        tokens = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        pixels = self.processor.image_processor(Image.fromarray(page["image"]), return_tensors="pt")["pixel_values"]
        inputs = self.to_device({"pixel_values": pixels, "decoder_input_ids": tokens})
        # generate() puts no start token before a Donut's prompt.
        return Prompt(inputs, text_tokens=tokens.shape[1], offset=tokens.shape[1])

    def page_answer(self, raw: JsonObject, page: JsonObject, prompt: Prompt) -> JsonObject:
        """Returns the field `answer` that the model fills in."""
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

    def notes(self, pages: Sequence[JsonObject]) -> list[str]:
        """Tells of pages without words; raises `InvalidInputError` where none has any."""
        return unread_pages(pages)

    def surest(self, pages: Sequence[JsonObject], read: Sequence[JsonObject], options: JsonObject) -> JsonObject:
        """Returns the answer that counts; it stands on no page where no page has words."""
        raw = super().surest(pages, read, options)
        return raw if any(page["words"] for page in pages) else {**raw, "score": 0.0, "page": None}

    def page_prompt(self, query: str, page: JsonObject) -> Prompt | None:
        """Returns a page's words and picture, and the question with the prefix that the model was trained with."""
        if not page["words"]:
            return None
        encoded = self.processor(
            Image.fromarray(page["image"]),
            f"Question answering. {query}",
            text_pair=list(page["words"]),
            boxes=ordered_boxes(page),
            truncation="only_second",
            max_length=_MOST_TOKENS,
            return_tensors="pt",
        )
        return Prompt(self.to_device(encoded), text_tokens=int(encoded["input_ids"].shape[1]), offset=1)

    def page_answer(self, raw: JsonObject, page: JsonObject, prompt: Prompt) -> JsonObject:
        """Tells of a page whose end was not read."""
        raw = super().page_answer(raw, page, prompt)
        if prompt.text_tokens == _MOST_TOKENS:
            raw["warnings"].append(f"page {page['number']} has more than {_MOST_TOKENS} tokens: its end was not read")
        return raw
