"""Speech recognition: what all architectures share. A recording is heard piece by piece, and the texts are joined."""

import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.answer_pieces import AnswerPieces, Said, told
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_generation import shares
from src.inference.engines.transformers.generation import EXACT, option_warnings
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

    def hear(self, samples: Samples, options: JsonObject, said: Said | None = None) -> Heard:
        """Returns the text of one piece; `options["max_new_tokens"]`, where it stands, is what is left of it.

        `said`, where somebody follows the answer, is told the text as it grows.
        """
        raise NotImplementedError

    def hear_together(self, sounds: Sequence[Samples], options: JsonObject) -> list[Heard | Exception]:
        """Returns what `hear` returns or raises for each of several sounds."""
        return [attempted(self.hear, samples, options) for samples in sounds]

    @property
    def at_once(self) -> float | None:
        """The seconds that a recording heard beside others may have; None: each is heard alone."""
        return None

    @property
    def lengths_matter(self) -> bool:
        """Whether only recordings of one length can be heard together."""
        return False

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

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Recordings that are heard in one go may be heard together, as far as the model bears it."""
        alone = {name: value for name, value in options.items() if name != "num_return_sequences"}
        length = len(inputs["samples"])
        if self.at_once is None or length > self.at_once * self.rate or (self.generates and not shares(alone, EXACT)):
            return None
        return length if self.lengths_matter else 0

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Transcribes decoded audio (`samples`, `rate`, `seconds`)."""
        pieces = self._pieces(inputs)
        return self._answer(inputs, pieces, self._heard(pieces, options), options)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Transcribes several recordings of one piece each."""
        pieces = [attempted(self._pieces, each) for each in inputs]
        heard = together(pieces, lambda good: self.hear_together([piece.samples for (piece,) in good], options))
        return [
            one if isinstance(one, Exception) else attempted(self._answer, each, own, [one], options)
            for each, own, one in zip(inputs, pieces, heard, strict=True)
        ]

    def _pieces(self, inputs: Any) -> list[Piece]:
        return pieces_at_quiet_places(samples_of(inputs, self.rate), self.rate, self.longest)

    def _answer(self, inputs: Any, pieces: Sequence[Piece], heard: Sequence[Heard], options: JsonObject) -> JsonObject:
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
        heard, telling = list[Heard](), told()
        for piece in pieces:
            if stop_requested():
                raise CancelledError("transcription was stopped")
            if left is not None and left <= 0:
                heard[-1].cut = True
                break
            said = None if telling is None else partial(_tell, telling, [one.text for one in heard])
            one = self.hear(piece.samples, {**options, "max_new_tokens": left} if left is not None else options, said)
            left = None if left is None else left - one.tokens
            heard.append(one)
            if said is not None:
                said(one.text)
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


def _tell(telling: AnswerPieces, before: Sequence[str], text: str) -> None:
    """Tells the text so far: of the pieces before, and of the one that is heard."""
    telling.upto(joined([*before, text]))


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
