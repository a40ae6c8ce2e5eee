"""Speech recognition by transducers, RNN-T and TDT: Parakeet and Nemotron."""

import warnings
from typing import Any, ClassVar

import torch
from transformers import AutoModelForRNNT, AutoModelForTDT, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.ctc import segments
from src.inference.engines.transformers.generation import Stopped
from src.inference.engines.transformers.speech import Heard, SpeechRunner
from src.inference.engines.transformers.speech_seq2seq import language_code, some
from src.inference.engines.transformers.waveform import Samples
from src.inference.types import JsonObject


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

    def hear(self, samples: Samples, options: JsonObject) -> Heard:
        """Generates the tokens of one piece."""
        language = self._language(options.get("language"))
        inputs = self.encoded(samples, **({"language": language} if language else {}))
        recorder, listened = Recorder(self.model.config.vocab_size), Listened(self.model)
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
        told = self.processor.decode(output.sequences, durations=output.durations, skip_special_tokens=True)
        texts, times = told if isinstance(told, tuple) else (told, [[]])
        blank = self.model.config.blank_token_id
        said = [step for step in recorder.steps if step[0] != blank]
        heard = Heard(
            (texts if isinstance(texts, str) else texts[0]).strip(), len(said), logprobs=[value for _, value in said]
        )
        if wanted := options.get("return_timestamps"):
            words = words_of(times[0])
            heard.chunks = words if wanted == "word" else segments(words)
        heard.language, heard.cut = language and language_code(language), not listened.to_the_end
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
    """Ends generation once nobody waits for it; `to_the_end`: whether the model came to the end of the sound."""

    def __init__(self, model: Any) -> None:
        self.to_the_end = False
        self._model = model

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        finished = getattr(self._model, "_encoder_finished", None)
        self.to_the_end = finished is not None and bool(finished.all())
        return super().__call__(input_ids, scores, **kwargs)


class Recorder(LogitsProcessor):  # type: ignore[misc]
    """Notes the likeliest token of each step with its log-probability; `tokens`: where durations begin."""

    def __init__(self, tokens: int) -> None:
        self.steps = list[tuple[int, float]]()
        self._tokens = tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        likelihoods = torch.log_softmax(scores[0, : self._tokens].float(), dim=-1)
        token = int(likelihoods.argmax())
        self.steps.append((token, float(likelihoods[token])))
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
