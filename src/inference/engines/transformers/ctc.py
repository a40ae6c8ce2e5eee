"""Speech recognition by CTC: a token, or none, for each frame of sound. Wav2Vec2, HuBERT, Parakeet and others."""

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCTC

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.answer_pieces import Said
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.batch_forward import LENGTHS, BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated
from src.inference.engines.transformers.sound_lengths import SoundLengths, frame_count
from src.inference.engines.transformers.speech import Heard, SpeechRunner, joined
from src.inference.engines.transformers.waveform import Samples, overlapping
from src.inference.types import JsonObject

# Windows share eight seconds, and what is nearer than four to a cut is heard by the neighbour alone. All of it
# are whole numbers of frames of 20, 40 and 80 ms.
_WINDOW_SECONDS, _STRIDE_SECONDS = 28, 4
# A pause that parts two segments.
_PAUSE_SECONDS = 0.6


Frames = tuple[torch.Tensor, torch.Tensor]
"""Logits (frames x vocabulary), and the likeliest token of each frame."""


@dataclass(frozen=True, slots=True)
class Emission:
    """A token and the frames it spans; `logprob`: its log-probability in the first of them."""

    token: int
    first: int
    last: int
    logprob: float


class CtcRunner(SpeechRunner):
    """A model that tells for each frame which token sounds in it; long recordings are heard in overlapping windows."""

    auto_model = AutoModelForCTC
    longest = None
    generates: ClassVar[bool] = False

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        trial = BatchTrial(name, model)
        self._lengths = SoundLengths(trial, LENGTHS, self.encoded, self.rate)
        self._forward = BatchForward(trial, self._frames_of, lambda frames: [frames[0]], self._lengths.example)

    @property
    def at_once(self) -> float | None:
        """One window."""
        return float(_WINDOW_SECONDS)

    @property
    def lengths_matter(self) -> bool:
        """As the model's first batch has shown."""
        return self._lengths.matter

    def hear(self, samples: Samples, options: JsonObject, said: Said | None = None) -> Heard:
        """Reads the likeliest token of each frame."""
        return self._read(*self._frames(samples, said), len(samples), options)

    def hear_together(self, sounds: Sequence[Samples], options: JsonObject) -> list[Heard | Exception]:
        """Reads the frames of several sounds of one window each."""
        found = self._forward.outputs([self.encoded(samples) for samples in sounds])
        return [
            attempted(self._read, *_likeliest(frames), len(samples), options)
            for samples, frames in zip(sounds, found, strict=True)
        ]

    def _read(self, tokens: list[int], values: list[float], samples: int, options: JsonObject) -> Heard:
        emissions = collapsed(tokens, values, self._blank)
        heard = Heard(self._text(emissions), len(emissions), logprobs=[emission.logprob for emission in emissions])
        if wanted := options.get("return_timestamps"):
            words = self._words(emissions, samples / self.rate / len(tokens))
            heard.chunks = words if wanted == "word" else segments(words)
        return heard

    def _text(self, emissions: Sequence[Emission]) -> str:
        ids = [emission.token for emission in emissions]
        return str(self.tokenizer.decode(ids, group_tokens=False)).strip() if ids else ""

    @property
    def _blank(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.model.config.pad_token_id if pad is None else pad)

    def _frames(self, samples: Samples, said: Said | None = None) -> tuple[list[int], list[float]]:
        """Returns the likeliest token of each frame, and its log-probability."""
        size, stride = int(_WINDOW_SECONDS * self.rate), int(_STRIDE_SECONDS * self.rate)
        tokens, values = list[int](), list[float]()
        for window, before, after in overlapping(samples, size, stride):
            if stop_requested():
                raise CancelledError("transcription was stopped")
            found, likelihoods = self._window(window)
            per_sample = len(found) / len(window)
            own = slice(round(before * per_sample), len(found) - round(after * per_sample))
            tokens += found[own]
            values += likelihoods[own]
            if said is not None:
                said(self._text(collapsed(tokens, values, self._blank)))
        return tokens, values

    def _window(self, window: Samples) -> tuple[list[int], list[float]]:
        return _likeliest(self._frames_of([self.encoded(window)])[0])

    def _frames_of(self, encodings: Sequence[Encoded]) -> list[Frames]:
        """Returns the logits and the likeliest token of each frame of each sound."""
        inputs = collated(encodings)
        if hasattr(self.model, "generate"):  # it knows which frames are padding
            output = self.model.generate(**inputs, return_dict_in_generate=True)
            logits, tokens = self._silenced(output.logits, inputs), output.sequences
        else:
            logits = self.model(**inputs).logits
            tokens = logits.argmax(-1)
        counts = [None] if len(encodings) == 1 else [frame_count(self.model, each) for each in encodings]
        return [(logits[place, :count], tokens[place, :count]) for place, count in enumerate(counts)]

    def _silenced(self, logits: torch.Tensor, inputs: Encoded) -> torch.Tensor:
        """Returns logits without what frames of padding say: nothing that counts, and nothing that stays the same."""
        masked, told = getattr(self.model, "_get_output_attention_mask", None), inputs.get("attention_mask")
        if masked is None or told is None:
            return logits
        return logits * masked(told, target_length=logits.shape[1])[..., None]

    def _words(self, emissions: Sequence[Emission], frame_seconds: float) -> list[JsonObject]:
        groups = list[list[Emission]]()
        delimiter, open_word = getattr(self.tokenizer, "word_delimiter_token", None), False
        for emission, written in zip(emissions, self._written(emissions), strict=True):
            if written == delimiter:
                open_word = False
                continue
            begins = written.startswith(("▁", "Ġ", " ")) or is_word_alone(written)
            if open_word and not begins:
                groups[-1].append(emission)
            else:
                groups.append([emission])
            open_word = True
        return [
            {
                "text": str(self.tokenizer.decode([one.token for one in group], group_tokens=False)).strip(),
                "timestamp": [group[0].first * frame_seconds, (group[-1].last + 1) * frame_seconds],
            }
            for group in groups
        ]

    def _written(self, emissions: Sequence[Emission]) -> list[str]:
        tokens = self.tokenizer.convert_ids_to_tokens([emission.token for emission in emissions])
        return [str(token) for token in tokens]


def _likeliest(frames: Frames) -> tuple[list[int], list[float]]:
    logits, tokens = frames
    likelihoods = torch.log_softmax(logits.float(), dim=-1).gather(-1, tokens[:, None])[:, 0]
    return tokens.tolist(), likelihoods.tolist()


def collapsed(tokens: Sequence[int], values: Sequence[float], blank: int) -> list[Emission]:
    """Returns what frames say: a token that goes on is one, and blanks are none."""
    found, frame = list[Emission](), 0
    for token, run in itertools.groupby(tokens):
        length = len(list(run))
        if token != blank:
            found.append(Emission(token, frame, frame + length - 1, values[frame]))
        frame += length
    return found


def segments(words: Sequence[JsonObject]) -> list[JsonObject]:
    """Returns words as segments, parted where somebody pauses."""
    parts = list[list[JsonObject]]()
    for word in words:
        if parts and word["timestamp"][0] - parts[-1][-1]["timestamp"][1] < _PAUSE_SECONDS:
            parts[-1].append(word)
        else:
            parts.append([word])
    return [
        {
            "text": joined([word["text"] for word in part]),
            "timestamp": [part[0]["timestamp"][0], part[-1]["timestamp"][1]],
        }
        for part in parts
    ]


def is_word_alone(text: str) -> bool:
    """Whether a token is a character of a script that puts no spaces between words."""
    return len(text) == 1 and unicodedata.name(text, "").startswith(("CJK", "HIRAGANA", "KATAKANA"))
