"""Speech recognition: what all architectures share. A recording is heard piece by piece, and the texts are joined."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.unused_options import unused_by_speech
from src.inference.engines.transformers.waveform import (
    Piece,
    Samples,
    feature_extractor_of,
    pieces_at_quiet_places,
    samples_of,
    sampling_rate_of,
)
from src.inference.types import JsonObject

# More tokens a second than anybody speaks, with a letter for each token.
_TOKENS_PER_SECOND = 30
_LEAST_TOKENS = 64


@dataclass(slots=True)
class Heard:
    """What a model made of a piece: `chunks` hold seconds from the piece's start; `cut`: it ran out of tokens."""

    text: str
    tokens: int
    chunks: list[JsonObject] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    language: str | None = None
    cut: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SpeechProcessor:
    """A feature extractor and a tokenizer of a checkpoint that names no processor for the two."""

    feature_extractor: Any
    tokenizer: Any

    def __call__(self, audio: Samples, **options: Any) -> Any:
        return self.feature_extractor(audio, **options)


class SpeechRunner(Runner):
    """Base of the runners of task `asr`: a subclass has `hear`."""

    auto_model = AutoModelForSpeechSeq2Seq
    longest: float | None = 30.0
    """Seconds that a piece may have; None: the model follows a recording of any length by itself."""
    generates: ClassVar[bool] = True
    unused: tuple[str, ...] = ("language", "task")
    """Options that the architecture cannot honour."""

    def hear(self, samples: Samples, options: JsonObject) -> Heard:
        """Returns the text of one piece; `options["max_new_tokens"]`, where it stands, is what is left of it."""
        raise NotImplementedError

    @classmethod
    def load_processor(cls, path: Any, **kwargs: Any) -> Any:
        """Returns the checkpoint's processor, or its feature extractor and tokenizer together."""
        processor = super().load_processor(path, **kwargs)
        if getattr(processor, "tokenizer", None) is not None:
            return processor
        extractor = AutoFeatureExtractor.from_pretrained(path, **kwargs)
        return SpeechProcessor(extractor, AutoTokenizer.from_pretrained(path, **kwargs))

    @property
    def rate(self) -> int:
        """The samples per second that the model wants."""
        return sampling_rate_of(self.processor)

    @property
    def tokenizer(self) -> Any:
        """What turns tokens into text."""
        return self.processor.tokenizer

    @property
    def media(self) -> JsonObject:
        """The rate at which the model wants its samples."""
        return {"sampling_rate": self.rate}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Listens to half a second of silence."""
        self.hear(np.zeros(self.rate // 2, np.float32), {"max_new_tokens": 2, **self.needed()})

    def needed(self) -> JsonObject:
        """Returns the options without which the model cannot work, with some value."""
        return {}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Transcribes decoded audio (`samples`, `rate`, `seconds`)."""
        pieces = pieces_at_quiet_places(samples_of(inputs, self.rate), self.rate, self.longest)
        heard = self._heard(pieces, options)
        raw: JsonObject = {
            "response": joined([one.text for one in heard]),
            "language": next((one.language for one in heard if one.language), None),
            "metadata": self._metadata(inputs, pieces, heard, options),
            "warnings": list(dict.fromkeys(text for one in heard for text in one.warnings)),
        }
        if options.get("return_timestamps"):
            raw["chunks"], notes = self._chunks(pieces, heard)
            raw["warnings"] += notes
        raw["warnings"] += _length_warnings(pieces, heard)
        unused = unused_by_speech(options, generates=self.generates, more=self.unused)
        raw["warnings"] += option_warnings(options, "this model's asr", unused)
        return raw

    def decoded(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def encoded(self, samples: Samples, **options: Any) -> dict[str, Any]:
        """Returns a recording as the model's inputs, on its device."""
        return self.to_device(self.processor(audio=samples, sampling_rate=self.rate, return_tensors="pt", **options))

    def bounded(self, samples: Samples, options: JsonObject) -> JsonObject:
        """Returns options that bound an answer by what can be said in its time, unless the caller bounds it.

        The documented 256 tokens would cut a long recording off, and nobody asked for that.
        """
        if "max_new_tokens" in options or "max_length" in options:
            return options
        most = _LEAST_TOKENS + int(len(samples) / self.rate * _TOKENS_PER_SECOND)
        return {**options, "max_new_tokens": most}

    def _heard(self, pieces: Sequence[Piece], options: JsonObject) -> list[Heard]:
        left = token_budget(options) if self.generates else None
        heard = list[Heard]()
        for piece in pieces:
            if stop_requested():
                raise CancelledError("transcription was stopped")
            if left is not None and left <= 0:
                heard[-1].cut = True
                break
            one = self.hear(piece.samples, {**options, "max_new_tokens": left} if left is not None else options)
            left = None if left is None else left - one.tokens
            heard.append(one)
        return heard

    def _metadata(
        self, inputs: Any, pieces: Sequence[Piece], heard: Sequence[Heard], options: JsonObject
    ) -> JsonObject:
        metadata: JsonObject = {
            "model": self.name,
            "tokens": sum(one.tokens for one in heard),
            "duration": round(inputs["seconds"], 3),
            "finish_reason": "length" if any(one.cut for one in heard) else "stop",
            "pieces": len(pieces),
        }
        if options.get("logprobs"):
            metadata["logprobs"] = [value for one in heard for value in one.logprobs]
        return metadata

    def _chunks(self, pieces: Sequence[Piece], heard: Sequence[Heard]) -> tuple[list[JsonObject], list[str]]:
        if any(one.chunks for one in heard):
            return [
                _placed(chunk, piece)
                for piece, one in zip(pieces, heard, strict=False)
                for chunk in one.chunks
                if chunk["text"]
            ], []
        whole = [
            {"text": one.text, "timestamp": [piece.start, piece.end]}
            for piece, one in zip(pieces, heard, strict=False)
            if one.text
        ]
        told = "this model tells no times: each chunk is a whole piece of the recording"
        return whole, [f"option 'return_timestamps': {told}"] if whole else []


def joined(texts: Sequence[str]) -> str:
    """Returns texts as one, with a space between them where their script has spaces."""
    whole = ""
    for text in (text.strip() for text in texts):
        if whole and text:
            whole += "" if _is_dense(whole[-1]) and _is_dense(text[0]) else " "
        whole += text
    return whole


def has_feature_extractor(processor: Any) -> bool:
    """Whether a processor can hear at all."""
    return hasattr(feature_extractor_of(processor), "sampling_rate")


def token_budget(options: JsonObject) -> int | None:
    """Returns how many tokens the caller allows all pieces together; None where nobody bounds them."""
    return min((options[name] for name in ("max_new_tokens", "max_length") if name in options), default=None)


def _is_dense(character: str) -> bool:
    """Whether a character belongs to a script that puts no spaces between words."""
    return unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH"))


def _placed(chunk: JsonObject, piece: Piece) -> JsonObject:
    """Returns a chunk with its times counted from the start of the recording, and inside it."""
    start, end = (round(min(piece.start + second, piece.end), 3) for second in chunk["timestamp"])
    return {"text": chunk["text"], "timestamp": [start, max(start, end)]}


def _length_warnings(pieces: Sequence[Piece], heard: Sequence[Heard]) -> list[str]:
    warnings = []
    if loud := [f"{piece.end:.1f}" for piece in pieces if not piece.quiet_end]:
        warnings.append(
            "the recording is longer than the model hears at once and is never quiet near "
            f"{', '.join(loud[:5])} s, where it was cut: words there may be wrong"
        )
    if any(one.cut for one in heard):
        warnings.append("the transcription ends early: it ran out of tokens; set max_new_tokens higher")
    return warnings
