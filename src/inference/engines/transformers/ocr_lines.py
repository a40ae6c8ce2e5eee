"""OCR by models that read many pictures at a time, each of one line or as they were made for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.core.errors import InvalidInputError
from src.inference.engines.transformers import page_cuts
from src.inference.engines.transformers.answer_pieces import told
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.ocr_reading import Asked, ReadingRunner
from src.inference.engines.transformers.recognition import CtcLineReader, Pixels, Reading, TextWriter
from src.inference.engines.transformers.unused_options import GENERATION
from src.inference.engines.transformers.vision_inputs import load_processor
from src.inference.engines.transformers.vision_language import VisionLanguageRunner
from src.inference.models.ocr import BETWEEN_PICTURES
from src.inference.types import JsonObject

# The start of an answer for each of Donut's own sets of documents; one that reads plain text comes first.
_DONUT_STARTS = ("<s_synthdog>", "<s_cord-v2>", "<s_zhtrainticket>", "<s_rvlcdip>", "<s_iitcdip>")


class RecogniserOcr(ReadingRunner):
    """Base of runners whose model reads many pictures at a time, each of one line or as it was made for."""

    reads_lines = True
    """Whether the model reads one line at a time: pages are cut for it."""

    def recognise(self, crops: Sequence[Pixels], options: JsonObject) -> list[Reading]:
        """Returns what stands in each picture, in their order."""
        raise NotImplementedError

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Reads the `images`; the text is told as a whole."""
        raw = super().run(inputs, options)
        if (pieces := told()) is not None:
            pieces.finish(BETWEEN_PICTURES.join(page["text"] for page in raw["response"]))
        return raw

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Reads all pictures, those of several lines piece by piece."""
        how = options.get("segmentation", "auto") if self.reads_lines else "none"
        cut = [page_cuts.cuts(image, how) for image in images]
        crops = [
            [image] if pieces is None else [piece.picture for piece in pieces]
            for image, pieces in zip(images, cut, strict=True)
        ]
        readings = iter(self.recognise([crop for page in crops for crop in page], options))
        pages = []
        for pieces, page in zip(cut, crops, strict=True):
            read = [next(readings) for _ in page]
            found = _page(self.name, read, options)
            pages.append(found if pieces is None else found | page_cuts.put_together(pieces, read, how))
        return pages

    def read_together(self, requests: Sequence[Asked], options: JsonObject) -> list[list[JsonObject] | Exception]:
        """Reads the pictures of all requests with one prompt as if they were of one."""
        found: dict[int, list[JsonObject] | Exception] = {}
        for prompt in dict.fromkeys(prompt for _, prompt in requests):
            places = [place for place, (_, own) in enumerate(requests) if own == prompt]
            pages = attempted(self.read, [image for place in places for image in requests[place][0]], prompt, options)
            if isinstance(pages, Exception):
                found |= {place: attempted(self.read, *requests[place], options) for place in places}
                continue
            read = iter(pages)
            found |= {place: [next(read) for _ in requests[place][0]] for place in places}
        return [found[place] for place in range(len(requests))]

    def _unused(self, options: JsonObject) -> list[str]:
        cutting = options.get("segmentation") in ("lines", "words")
        return [*super()._unused(options), *(["segmentation"] if cutting and not self.reads_lines else [])]


class WriterOcr(RecogniserOcr):
    """A vision encoder with a text decoder: TrOCR reads a line, Donut and Nougat read a page."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._writer = TextWriter(model, processor, self.device)
        # Donut's answers are fields between tags.
        self.writes_fields = hasattr(processor, "token2json")
        self.reads_lines = not self.writes_fields and "Nougat" not in type(processor).__name__
        self._start = self._own_start()
        self.takes_prompt = self.writes_fields

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns what prepares pictures and reads tokens."""
        return load_processor(path, **kwargs)

    @classmethod
    def load_model(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the model."""
        return VisionLanguageRunner.load_model(path, **kwargs)

    def recognise(self, crops: Sequence[Pixels], options: JsonObject) -> list[Reading]:
        """Returns what stands in each picture."""
        found: list[Reading] = self._writer.recognise(crops, options)
        return found

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Reads all pictures; `prompt`: how Donut's answer begins, `<s_cord-v2>`."""
        if not self.writes_fields:
            return super().read(images, prompt, options)
        start = self._start if prompt is None else self._checked(prompt)
        found = self._writer.recognise(images, options, prompt=start, skip_special_tokens=False)
        return [self._fields(reading, options) for reading in found]

    def _own_start(self) -> str:
        """Returns what Donut's answers begin with, unless its config says so already."""
        own, tokenizer = self.model.generation_config.decoder_start_token_id, self.processor.tokenizer
        if not self.writes_fields or own not in (None, tokenizer.bos_token_id, tokenizer.eos_token_id):
            return ""
        known = tokenizer.get_vocab()
        return next((token for token in _DONUT_STARTS if token in known), "")

    def _checked(self, prompt: str) -> str:
        tokenizer = self.processor.tokenizer
        known = tokenizer.get_vocab()
        first = prompt.partition(">")[0] + ">"
        if first in known:
            return prompt
        starts = sorted(token for token in known if token.startswith("<s_"))[:20]
        raise InvalidInputError(
            f"field 'prompt': this model is not asked in words, its answers begin with a token of its own: {starts}",
            details={"field": "prompt", "tokens": starts},
        )

    def _fields(self, reading: Reading, options: JsonObject) -> JsonObject:
        tokenizer = self.processor.tokenizer
        written = reading.text
        for token in {tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token}:
            written = written.replace(token, "") if token else written
        fields = self.processor.token2json(written.strip())
        leaves = _leaves(fields)
        page = _page(self.name, [reading], options)
        del page["lines"]
        page["text"] = "\n".join(leaves)
        return page if set(fields) == {"text_sequence"} else {**page, "fields": fields}


class LineOcr(RecogniserOcr, CtcLineReader):
    """A recogniser of single lines that classifies columns (PP-OCR)."""

    unused = tuple(GENERATION)
    takes_prompt = False

    def recognise(self, crops: Sequence[Pixels], options: JsonObject) -> list[Reading]:
        """Returns what stands in each picture."""
        found: list[Reading] = CtcLineReader.recognise(self, crops, options)
        return found


def _page(name: str, readings: Sequence[Reading], options: JsonObject) -> JsonObject:
    """Returns what was read on one picture, in one piece or several."""
    metadata: JsonObject = {
        "model": name,
        "tokens": sum(reading.tokens for reading in readings),
        "finish_reason": "stop" if all(reading.ended for reading in readings) else "length",
        "prompt_tokens": 0,
    }
    if options.get("logprobs"):
        if any(reading.logprobs is None for reading in readings):
            raise InvalidInputError("option 'logprobs' needs num_beams 1")
        metadata["logprobs"] = [value for reading in readings for value in reading.logprobs or ()]
    found = [(reading.text.strip(), reading.score) for reading in readings if reading.text.strip()]
    lines = [{"text": text} | ({"score": score} if score is not None else {}) for text, score in found]
    return {"text": "\n".join(text for text, _ in found), "lines": lines, "metadata": metadata}


def _leaves(fields: Any) -> list[str]:
    """Returns the texts of nested fields, in their order."""
    if isinstance(fields, dict):
        fields = list(fields.values())
    if isinstance(fields, list):
        return [leaf for field in fields for leaf in _leaves(field)]
    return [str(fields)] if str(fields) else []
