"""Document question answering by models that mark the answer among a document's words (LayoutLM v1 to v3)."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForDocumentQuestionAnswering, AutoProcessor, AutoTokenizer

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.answer_pieces import told
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.batch_forward import BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated, token_count
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.spans import Marks, Span, best_spans
from src.inference.types import JsonObject

# Tokens that an answer may have; LayoutLM's own examples take 15, too few for an address.
_LONGEST = 32
_OVERLAP = 128
_CANDIDATES = 10
_NO_EFFECT = (
    "language", "task", "return_timestamps", "num_frames", "fps", "max_length", "min_length", "do_sample",
    "temperature", "top_p", "top_k", "num_beams", "repetition_penalty", "no_repeat_ngram_size",
    "num_return_sequences", "stop", "seed", "logprobs",
)  # fmt: skip
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class _Window:
    """Part of a page as the model reads it: `places` are those of its words' tokens, `words` their words.

    `overlap`: how many of them the next window has too.
    """

    inputs: Encoded
    places: list[int]
    words: list[int]
    overlap: int


class SpanRunner(Runner):
    """A model that says of each word whether the answer starts or ends there.

    It reads words with their boxes, and the page's picture where it was made to.
    """

    auto_model = AutoModelForDocumentQuestionAnswering

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._pictures = getattr(processor, "image_processor", None)
        self._kind = str(model.config.model_type)
        self._size = _window_size(self._tokenizer, model.config)
        self._forward = BatchForward(BatchTrial(name, model), self._logits, lambda logits: [logits])

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns a processor, or a tokenizer for a model that sees no pictures."""
        kind = AutoConfig.from_pretrained(path, **kwargs).model_type
        if kind == "layoutlm":
            # Words come one by one; a byte-level tokenizer must be told that each begins with a space.
            return AutoTokenizer.from_pretrained(path, add_prefix_space=True, **kwargs)
        if not any((path / name).is_file() for name in _PROCESSORS):
            return AutoTokenizer.from_pretrained(path, **kwargs)
        processor = AutoProcessor.from_pretrained(path, **kwargs)
        if hasattr(processor, "image_processor"):
            processor.image_processor.apply_ocr = False
        return processor

    @property
    def media(self) -> JsonObject:
        """Words always; pictures where the model looks at them."""
        return {"needs_words": True, "needs_images": self._pictures is not None}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Reads a page of one word."""
        image = np.full((32, 32, 3), 255, np.uint8)
        self._read("a", {"words": ("a",), "boxes": np.array([[0, 0, 9, 9]]), "image": image})

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Windows of any documents go together."""
        return ()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the likeliest words of all pages together; `inputs`: `query` and `pages`."""
        warnings = unread_pages(inputs["pages"])
        marks = [self._read(inputs["query"], page) for page in inputs["pages"]]
        raw = self._answer(inputs["pages"], marks, warnings, options)
        if (pieces := told()) is not None:
            pieces.finish(raw["response"])
        return raw

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Returns the likeliest words of several documents, whose windows are read together."""
        documents = [attempted(self._document, each) for each in inputs]
        windows = [
            window for each in documents if not isinstance(each, Exception) for page in each[1] for window in page
        ]
        found = iter(self._forward.outputs([window.inputs for window in windows]))
        return [
            each
            if isinstance(each, Exception)
            else self._answer(
                given["pages"], [_marked(page, [next(found) for _ in page]) for page in each[1]], each[0], options
            )
            for given, each in zip(inputs, documents, strict=True)
        ]

    def _document(self, inputs: Any) -> tuple[list[str], list[list[_Window]]]:
        """Returns the warnings about a document, and the windows of each of its pages."""
        warnings = unread_pages(inputs["pages"])
        return warnings, [list(self._windows(inputs["query"], page)) for page in inputs["pages"]]

    def _answer(
        self, pages: Sequence[JsonObject], marks: Sequence[Marks], warnings: Sequence[str], options: JsonObject
    ) -> JsonObject:
        unused = option_warnings(options, "document-analysis with a model that marks words", _NO_EFFECT)
        spans = best_spans(marks, options.get("max_new_tokens", _LONGEST))
        found = sorted(
            (_candidate(page, span) for page, span in zip(pages, spans, strict=True) if span is not None),
            key=lambda candidate: -candidate["score"],
        )
        best = found[0] if found else {"answer": "", "score": 0.0, "page": None, "box": None}
        metadata = {
            "model": self.name,
            "pages": [page["number"] for page in pages],
            "candidates": found[:_CANDIDATES],
        }
        if read_by := next((page["ocr"] for page in pages if page.get("ocr")), None):
            metadata["ocr"] = read_by
        answer = {"response": best["answer"], **{name: best[name] for name in ("score", "page", "box")}}
        return {**answer, "metadata": metadata, "warnings": [*warnings, *unused]}

    def _read(self, query: str, page: JsonObject) -> Marks:
        """Returns what the model marks on a page, window by window."""
        windows, logits = list[_Window](), list[torch.Tensor]()
        for window in self._windows(query, page):
            if stop_requested():
                raise CancelledError("reading the document was stopped")
            windows.append(window)
            logits += self._logits([window.inputs])
        return _marked(windows, logits)

    def _logits(self, encodings: Sequence[Encoded]) -> list[torch.Tensor]:
        """Returns for each window how likely the answer starts, and ends, at each of its tokens (2 x tokens)."""
        output = self.model(**collated(encodings, pad_token=int(self._tokenizer.pad_token_id or 0)))
        both = torch.stack([output.start_logits, output.end_logits], dim=1).float()
        return [row[:, : token_count(encoded)] for row, encoded in zip(both, encodings, strict=True)]

    def _seen(self, page: JsonObject) -> JsonObject:
        if self._pictures is None or page["image"] is None:
            return {}
        pixels = self._pictures(page["image"], return_tensors="pt")["pixel_values"]
        return {"image" if self._kind == "layoutlmv2" else "pixel_values": pixels}

    def _windows(self, query: str, page: JsonObject) -> Iterator[_Window]:
        """Yields a page's windows."""
        if not page["words"]:
            return
        words, boxes, seen = page["words"], ordered_boxes(page), self._seen(page)
        overlap = self._overlap(query)
        asked: JsonObject = {"text": query, "text_pair": list(words), "boxes": boxes}
        if self._kind == "layoutlm":
            asked = {"text": query.split(), "text_pair": list(words), "is_split_into_words": True}
        encoding = self._tokenizer(
            **asked,
            truncation="only_second",
            max_length=self._size,
            stride=overlap,
            return_overflowing_tokens=True,
        )
        encoding.pop("overflow_to_sample_mapping", None)
        for index in range(len(encoding["input_ids"])):
            inputs = {name: values[index] for name, values in encoding.items()}
            parts, places = encoding.sequence_ids(index), encoding.word_ids(index)
            if self._kind == "layoutlm":
                inputs["bbox"] = _token_boxes(inputs["input_ids"], parts, places, boxes, self._tokenizer.sep_token_id)
            of_page = [place for place, part in enumerate(parts) if part == 1]
            tensors = {name: torch.tensor([values]) for name, values in inputs.items()} | seen
            yield _Window(self.to_device(tensors), of_page, [places[place] for place in of_page], overlap)

    def _overlap(self, query: str) -> int:
        """Returns how far windows overlap; raises `InvalidInputError` where the query leaves them no room."""
        backend = self._tokenizer.backend_tokenizer
        backend.no_truncation()  # that of the last page
        asked = len(backend.encode(query, add_special_tokens=False).ids)
        room = self._size - asked - int(self._tokenizer.num_special_tokens_to_add(pair=True))
        if room < self._size // 4:
            raise InvalidInputError(
                f"the query has {asked} tokens and the model reads {self._size} at once, those of the document "
                "included: shorten the query",
                details={"query_tokens": asked, "window_tokens": self._size},
            )
        return min(_OVERLAP, room // 2)


def _marked(windows: Sequence[_Window], logits: Sequence[torch.Tensor]) -> Marks:
    """Returns what a model marked on a page, given its logits for each window."""
    marks, offset = Marks(), 0
    for window, found in zip(windows, logits, strict=True):
        starts, ends = found[:, window.places].tolist()
        marks.add(offset, window.overlap // 2 if offset else 0, window.words, starts, ends)
        offset += len(window.words) - window.overlap
    return marks


def _window_size(tokenizer: Any, config: Any) -> int:
    """Returns how many tokens the model reads at once, whatever its tokenizer says that it can."""
    positions = int(config.max_position_embeddings)
    if config.model_type == "layoutlmv3":
        # As in RoBERTa, positions begin behind the padding's.
        positions -= config.pad_token_id + 1
    return min(positions, int(tokenizer.model_max_length))


def _token_boxes(
    ids: Sequence[int],
    parts: Sequence[int | None],
    places: Sequence[int | None],
    boxes: Sequence[list[int]],
    separator: int,
) -> list[list[int]]:
    """Returns each token's box: its word's, and LayoutLM's own for the question, separators and what begins it all."""
    return [
        boxes[place] if part == 1 and place is not None else [1000] * 4 if token == separator else [0] * 4
        for token, part, place in zip(ids, parts, places, strict=True)
    ]


def ordered_boxes(page: JsonObject) -> list[list[int]]:
    """Returns a page's boxes within 0 to 1000, corners in order: there is no embedding for a negative width."""
    boxes = np.clip(np.asarray(page["boxes"], dtype=np.int64).reshape(-1, 4), 0, 1000)
    ordered = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    listed: list[list[int]] = ordered.tolist()
    return listed


def _candidate(page: JsonObject, span: Span) -> JsonObject:
    boxes = np.array(ordered_boxes(page)[span.first : span.last + 1])
    return {
        "page": page["number"],
        "answer": " ".join(page["words"][span.first : span.last + 1]),
        "score": span.score,
        "box": [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()],
    }


def unread_pages(pages: Sequence[JsonObject]) -> list[str]:
    """Returns a warning for pages that nobody could read; raises `InvalidInputError` where that is all of them."""
    unread = [page["number"] for page in pages if not page["words"] and not page.get("ocr")]
    if unread and len(unread) == len(pages):
        raise InvalidInputError(
            "`data.document` has no text, and no OCR is configured that could read its pictures: set media.ocr, or "
            "send a PDF with a text layer",
            details={"field": "data.document", "setting": "media.ocr"},
        )
    if not unread:
        return []
    numbers = ", ".join(map(str, unread))
    return [f"pages without text were not read, since no OCR is configured (media.ocr): {numbers}"]
