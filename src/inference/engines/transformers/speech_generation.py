"""Speech recognition by generating text: what encoders with decoders and language models that hear share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from src.inference.engines.transformers.answer_pieces import Said, followed
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_generation import MEDIA, BatchGenerator
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded
from src.inference.engines.transformers.generation import EXACT, Generator, Prompt
from src.inference.engines.transformers.sound_lengths import SoundLengths
from src.inference.engines.transformers.speech import Heard, SpeechRunner
from src.inference.engines.transformers.waveform import Samples
from src.inference.types import JsonObject


@dataclass(frozen=True, slots=True)
class SpeechPrompt:
    """A piece of a recording as a model is asked to write it down.

    `extra`: what `generate` is told besides; `language`: of the answer, where it is known.
    """

    prompt: Prompt
    extra: JsonObject = field(default_factory=dict)
    language: str | None = None
    warnings: Sequence[str] = ()


class GeneratingSpeechRunner(SpeechRunner):
    """A model that writes what it hears, token after token; a subclass has `prompt`."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._generator = Generator(name, model, self.tokenizer, defaults=EXACT)
        self._trial = BatchTrial(name, model)
        self._lengths = SoundLengths(self._trial, MEDIA, self._inputs, self.rate)

    def prompt(self, samples: Samples, options: JsonObject) -> SpeechPrompt:
        """Returns a piece as the model's inputs; raises `InvalidInputError` for options that it cannot honour."""
        raise NotImplementedError

    @property
    def at_once(self) -> float | None:
        """A piece."""
        return self.longest

    @property
    def lengths_matter(self) -> bool:
        """As the model's first batch has shown."""
        return self._lengths.matter

    def hear(self, samples: Samples, options: JsonObject, said: Said | None = None) -> Heard:
        """Generates the text of one piece."""
        asked, bounds = self.prompt(samples, options), self.bounded(samples, _one_answer(options))
        extra = {**asked.extra, **followed(self.tokenizer, said, bounds)}
        return _heard(self._generator.answer(asked.prompt, bounds, **extra), asked)

    def hear_together(self, sounds: Sequence[Samples], options: JsonObject) -> list[Heard | Exception]:
        """Generates the texts of several pieces."""
        bounds = [self.bounded(samples, _one_answer(options)) for samples in sounds]
        asked = [attempted(self.prompt, samples, options) for samples in sounds]
        given = [each if isinstance(each, Exception) else (each, own) for each, own in zip(asked, bounds, strict=True)]
        return [
            raw if isinstance(raw, Exception) else attempted(_heard, raw, each)
            for raw, each in zip(together(given, self._answers), asked, strict=True)
        ]

    def _answers(self, asked: list[tuple[SpeechPrompt, JsonObject]]) -> list[JsonObject | Exception]:
        if not asked:
            return []
        generator = BatchGenerator(
            self.name,
            self.model,
            self.tokenizer,
            self._trial,
            defaults=EXACT,
            extra=asked[0][0].extra,  # it follows from the options, which are the same
            example=self._lengths.example,
        )
        return generator.answers([each.prompt for each, _ in asked], [bounds for _, bounds in asked])

    def _inputs(self, samples: Samples) -> Encoded:
        return self.prompt(samples, self.needed()).prompt.inputs


def _heard(raw: JsonObject, asked: SpeechPrompt) -> Heard:
    metadata = raw["metadata"]
    return Heard(
        raw["response"].strip(),
        metadata["tokens"],
        logprobs=metadata.get("logprobs", []),
        language=asked.language,
        cut=metadata["finish_reason"] == "length",
        warnings=[*asked.warnings, *raw["warnings"]],
    )


def _one_answer(options: JsonObject) -> JsonObject:
    """Returns options without those that make several answers, or end one early: a transcription is one and whole."""
    return {name: value for name, value in options.items() if name not in ("num_return_sequences", "stop")}
