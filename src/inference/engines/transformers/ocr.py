"""OCR: text read off pictures, by recognisers, by models with a mode for it, and by any that can be asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from transformers import AutoConfig

from src.core.errors import InvalidInputError
from src.inference.engines.transformers import page_cuts
from src.inference.engines.transformers.florence import ocr_lines, plain_text
from src.inference.engines.transformers.generation import EXACT, option_warnings
from src.inference.engines.transformers.recognition import CtcLineReader, Pixels, Reading, TextWriter
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.unused_options import GENERATION
from src.inference.engines.transformers.vision_inputs import load_processor
from src.inference.engines.transformers.vision_language import VisionLanguageRunner
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps", "num_frames", "fps", "pages")
_SAMPLING = ("temperature", "top_p", "top_k")
_ASK = "Read the text in this picture. Answer with the text alone, line by line."
_WORDS: Mapping[str, str] = {
    "deepseek_ocr2": "Free OCR.",
    "glm_ocr": "Text Recognition:",
    # Its processor leaves a space where a colour or a box may be named.
    "got_ocr2": " OCR: ",
    "granite_docling": "Convert this page to docling.",
    "hunyuan_vl": "Extract the text in the image.",
    "kosmos-2.5": "<ocr>",
    "paddleocr_vl": "OCR:",
    "paligemma": "ocr",
    "pp_formulanet": "",
    "unlimited_ocr": "Free OCR.",
}
"""Model type → the words that its authors ask for text with."""
_REGIONS = "<OCR_WITH_REGION>"
# The start of an answer for each of Donut's own sets of documents; one that reads plain text comes first.
_DONUT_STARTS = ("<s_synthdog>", "<s_cord-v2>", "<s_zhtrainticket>", "<s_rvlcdip>", "<s_iitcdip>")


class OcrRunner(Runner):
    """Base of runners that read text off pictures; loads a folder as the runner of its architecture."""

    unused: Sequence[str] = ()
    takes_prompt = True

    @classmethod
    def load(cls, name: str, path: Path, **kwargs: Any) -> Self:
        """Loads a folder."""
        if cls is not OcrRunner:
            return super().load(name, path, **kwargs)
        config = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=kwargs.get("trust_remote_code", False)
        )
        special: dict[str, type[OcrRunner]] = {"vision-encoder-decoder": WriterOcr, "florence2": FlorenceOcr}
        runner: Self = special.get(config.model_type, AskedOcr).load(name, path, **kwargs)  # type: ignore[assignment]
        return runner

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Returns for each picture `text`, `lines` or `fields` where there are any, and `metadata`."""
        raise NotImplementedError

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Reads; `inputs`: the pixels of the `images` and the `prompt`, None for the model's own."""
        prompt = inputs["prompt"]
        asked = {name: value for name, value in options.items() if name != "num_return_sequences"}
        warnings = option_warnings(options, "ocr", self._unused(options))
        if prompt and not self.takes_prompt:
            warnings.append("field 'prompt' has no effect: this model reads all text and takes no words")
        pages = self.read(inputs["images"], prompt if self.takes_prompt else None, asked)
        warnings += [warning for page in pages for warning in page.pop("warnings", [])]
        metadata = _together(self.name, [page.pop("metadata") for page in pages])
        if metadata["finish_reason"] == "length":
            warnings.append("the text was cut: raise max_new_tokens (and max_length) to read on")
        return {"response": pages, "metadata": metadata, "warnings": list(dict.fromkeys(warnings))}

    def _unused(self, options: JsonObject) -> list[str]:
        names = [*_NO_EFFECT, *self.unused]
        if options.get("num_return_sequences", 1) > 1:
            names.append("num_return_sequences")
        if not options.get("do_sample", EXACT["do_sample"]):
            names += _SAMPLING
        return list(dict.fromkeys(names))


class AskedOcr(OcrRunner, VisionLanguageRunner):
    """A model that is asked for the text, in its authors' words unless the request has others."""

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Asks about one picture after the other."""
        words = _WORDS.get(self.kind, _ASK) if prompt is None else prompt
        return [self._page(self.ask(words, options, images=[image], defaults=EXACT)) for image in images]

    def _page(self, raw: JsonObject) -> JsonObject:
        text = raw["response"]
        if self.kind == "pp_formulanet":
            text = self.processor.post_process_generation(text)
        return {"text": text.strip(), "metadata": raw["metadata"], "warnings": raw["warnings"]}


class FlorenceOcr(AskedOcr):
    """Florence-2: a task token asks for the lines and where they are."""

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Asks about one picture after the other."""
        return [self._located(image, prompt or _REGIONS, options) for image in images]

    def _located(self, image: Pixels, prompt: str, options: JsonObject) -> JsonObject:
        raw = self.ask(prompt, options, images=[image], defaults=EXACT, skip_special_tokens=False)
        page = {"text": plain_text(self.processor, raw["response"]), "metadata": raw["metadata"]}
        if prompt == _REGIONS:
            height, width = image.shape[:2]
            page["lines"] = ocr_lines(self.processor, raw["response"], (width, height))
            page["text"] = "\n".join(line["text"] for line in page["lines"]) or page["text"]
        return {**page, "warnings": raw["warnings"]}


class RecogniserOcr(OcrRunner):
    """Base of runners whose model reads many pictures at a time, each of one line or as it was made for."""

    reads_lines = True
    """Whether the model reads one line at a time: pages are cut for it."""

    def recognise(self, crops: Sequence[Pixels], options: JsonObject) -> list[Reading]:
        """Returns what stands in each picture, in their order."""
        raise NotImplementedError

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


def _together(name: str, found: Sequence[JsonObject]) -> JsonObject:
    """Returns the metadata of several answers as one; log-probabilities one picture after the other."""
    metadata: JsonObject = {
        "model": name,
        "tokens": sum(each["tokens"] for each in found),
        "finish_reason": "length" if any(each["finish_reason"] == "length" for each in found) else "stop",
        "prompt_tokens": sum(each["prompt_tokens"] for each in found),
    }
    if any("logprobs" in each for each in found):
        metadata["logprobs"] = [value for each in found for value in each.get("logprobs", [])]
    return metadata


def _leaves(fields: Any) -> list[str]:
    """Returns the texts of nested fields, in their order."""
    if isinstance(fields, dict):
        fields = list(fields.values())
    if isinstance(fields, list):
        return [leaf for field in fields for leaf in _leaves(field)]
    return [str(fields)] if str(fields) else []
