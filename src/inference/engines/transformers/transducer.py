"""Speech recognition by transducers, RNN-T and TDT: Parakeet and Nemotron."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import AutoModelForRNNT, AutoModelForTDT, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.answer_pieces import Said
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_forward import LENGTHS, BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated
from src.inference.engines.transformers.ctc import segments
from src.inference.engines.transformers.generation import Stopped
from src.inference.engines.transformers.sound_lengths import SoundLengths, frame_count
from src.inference.engines.transformers.speech import Heard, SpeechRunner
from src.inference.engines.transformers.speech_seq2seq import language_code, some
from src.inference.engines.transformers.waveform import Samples
from src.inference.types import JsonObject

_TRIED_STEPS = 8


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a transducer made of one sound: its tokens (1 x steps), and how many frames each went on.

    `steps`: token and log-probability of each step; `first`: the logits of the first few; `to_the_end`: whether it
    heard all of the sound.
    """

    tokens: torch.Tensor
    durations: torch.Tensor
    steps: list[tuple[int, float]]
    first: list[torch.Tensor]
    to_the_end: bool


class RnntRunner(SpeechRunner):
    """A model that goes along the frames and emits tokens, or nothing, at each."""

    auto_model = AutoModelForRNNT
    generates: ClassVar[bool] = False

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        # Only some are told the language; that is what their processor keeps a list for.
        self._prompts: dict[str, int] = dict(getattr(processor, "prompt_dictionary", None) or {})
        if self._prompts:
            self.unused = ("task",)
        trial = BatchTrial(name, model)
        self._lengths = SoundLengths(trial, LENGTHS, self.encoded, self.rate)
        self._forward = BatchForward(trial, self._generated, lambda spoken: spoken.first, self._lengths.example)

    @property
    def at_once(self) -> float | None:
        """A piece."""
        return self.longest

    @property
    def lengths_matter(self) -> bool:
        """As the model's first batch has shown."""
        return self._lengths.matter

    def hear(self, samples: Samples, options: JsonObject, said: Said | None = None) -> Heard:
        """Generates the tokens of one piece."""
        (spoken,) = self._generated([self._encoded(samples, options)])
        return self._read(spoken, options)

    def hear_together(self, sounds: Sequence[Samples], options: JsonObject) -> list[Heard | Exception]:
        """Generates the tokens of several pieces."""
        encodings = [attempted(self._encoded, samples, options) for samples in sounds]
        return [
            each if isinstance(each, Exception) else attempted(self._read, each, options)
            for each in together(encodings, self._forward.outputs)
        ]

    def _encoded(self, samples: Samples, options: JsonObject) -> Encoded:
        language = self._language(options.get("language"))
        return self.encoded(samples, **({"language": language} if language else {}))

    def _generated(self, encodings: Sequence[Encoded]) -> list[Spoken]:
        inputs = collated(encodings)
        recorder = Recorder(self.model.config.vocab_size, len(encodings))
        listened = Listened(self.model, len(encodings))
        with warnings.catch_warnings():
            # It sizes its answer by the frames, and is warned of that by the code that it overrides.
            warnings.filterwarnings("ignore", "Using the model-agnostic default `max_length`", UserWarning)
            output = self.model.generate(
                **inputs,
                logits_processor=LogitsProcessorList([recorder]),
                stopping_criteria=StoppingCriteriaList([listened]),
            )
        if stop_requested():
            raise CancelledError("transcription was stopped")
        counts = [min(pair) for pair in zip(listened.counts, map(self._most, encodings), strict=True)]
        return [
            Spoken(
                # Both begin with the start token; what follows the end of the sound is padding.
                output.sequences[row : row + 1, : 1 + count],
                output.durations[row : row + 1, : 1 + count],
                recorder.steps[row][:count],
                recorder.first[row][:count],
                listened.ended[row] and listened.counts[row] == count,
            )
            for row, count in enumerate(counts)
        ]

    def _most(self, encoded: Encoded) -> int:
        """Returns after how many steps `generate` ends at the latest, on a sound that it hears alone."""
        frames, symbols = frame_count(self.model, encoded), getattr(self.model, "max_symbols_per_step", None)
        return sys.maxsize if frames is None or symbols is None else frames * int(symbols) - 1

    def _read(self, spoken: Spoken, options: JsonObject) -> Heard:
        told = self.processor.decode(spoken.tokens, durations=spoken.durations, skip_special_tokens=True)
        texts, times = told if isinstance(told, tuple) else (told, [[]])
        blank = self.model.config.blank_token_id
        said = [step for step in spoken.steps if step[0] != blank]
        heard = Heard(
            (texts if isinstance(texts, str) else texts[0]).strip(), len(said), logprobs=[value for _, value in said]
        )
        if wanted := options.get("return_timestamps"):
            words = words_of(times[0])
            heard.chunks = words if wanted == "word" else segments(words)
        language = self._language(options.get("language"))
        heard.language, heard.cut = language and language_code(language), not spoken.to_the_end
        return heard

    def _language(self, wanted: str | None) -> str | None:
        """Returns the language as the processor lists it; raises `InvalidInputError` for one that it does not."""
        if wanted is None or not self._prompts:
            return None
        for name in (wanted, language_code(wanted)):
            if name in self._prompts:
                return name
        spoken = [name for name in self._prompts if name.partition("-")[0] == language_code(wanted)]
        if not spoken:
            known = sorted(self._prompts)
            raise InvalidInputError(
                f"option 'language': '{wanted}' is none of this model's languages: it has {some(known)}",
                details={"languages": known},
            )
        return spoken[0]


class TdtRunner(RnntRunner):
    """A transducer that also tells how many frames to go on."""

    auto_model = AutoModelForTDT


class Listened(Stopped):
    """Ends generation once nobody waits for it.

    `counts`: the steps that each sound took to its end, `ended`: whether the model came to it.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self.counts, self.ended = [0] * rows, [False] * rows
        self._model = model

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        finished = getattr(self._model, "_encoder_finished", None)
        ends = [False] * len(self.ended) if finished is None else finished.tolist()
        for row, end in enumerate(ends):
            if not self.ended[row]:
                self.counts[row], self.ended[row] = self.counts[row] + 1, bool(end)
        return super().__call__(input_ids, scores, **kwargs)


class Recorder(LogitsProcessor):  # type: ignore[misc]
    """Notes the likeliest token of each step with its log-probability; `tokens`: where durations begin.

    `first`: the logits of the first few steps of each sound.
    """

    def __init__(self, tokens: int, rows: int) -> None:
        self.steps: list[list[tuple[int, float]]] = [[] for _ in range(rows)]
        self.first: list[list[torch.Tensor]] = [[] for _ in range(rows)]
        self._tokens = tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        found = torch.log_softmax(scores[:, : self._tokens].float(), dim=-1).max(dim=-1)
        for row, step in enumerate(zip(found.indices.tolist(), found.values.tolist(), strict=True)):
            self.steps[row].append(step)
            if len(self.first[row]) < _TRIED_STEPS:
                self.first[row].append(scores[row].clone())
        return scores


def words_of(tokens: list[JsonObject]) -> list[JsonObject]:
    """Returns words made of tokens with their times; a token that begins with a space begins a word."""
    words = list[JsonObject]()
    for token in tokens:
        if not words or token["token"].startswith(" "):
            words.append({"text": "", "timestamp": [token["start"], token["end"]]})
        words[-1]["text"] += token["token"]
        words[-1]["timestamp"][1] = max(words[-1]["timestamp"][1], token["end"])
    spoken = [{"text": word["text"].strip(), "timestamp": word["timestamp"]} for word in words]
    return [word for word in spoken if word["text"]]
