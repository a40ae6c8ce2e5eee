"""Recognisers: models that turn the picture of a line (or of a page they were made for) into text, many at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForTextRecognition

from src.inference.engines.transformers.batch_forward import BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated
from src.inference.engines.transformers.generation import (
    EXACT,
    Prompt,
    Stopped,
    StopTexts,
    answer_bound,
    as_list,
    context_tokens,
    cut_at,
    generate,
    generation_config,
    seed,
)
from src.inference.engines.transformers.runner import Runner
from src.inference.types import JsonObject

Pixels = NDArray[np.uint8]
"""Height x width x 3, RGB."""

# Pictures that go through the model together: more would need memory and gain no time.
_TOGETHER = 16
_BLANK = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a recogniser read in one picture.

    `logprobs`: of each generated token, the one that ends the text included; None where beams were searched.
    """

    text: str
    logprobs: list[float] | None
    tokens: int
    ended: bool

    @property
    def score(self) -> float | None:
        """The mean probability of its tokens, 0 to 1; None where there is none."""
        return float(np.exp(np.mean(self.logprobs))) if self.logprobs else None


class Recogniser(Protocol):
    """Reads pictures of lines; what segments pages hands its crops to this."""

    def recognise(self, crops: Sequence[Pixels], options: JsonObject) -> list[Reading]:
        """Returns what stands in each picture, in their order."""
        ...


class TextWriter:
    """A vision encoder with a text decoder (TrOCR, Donut, Nougat …), many pictures in one `generate`."""

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        self._model, self._processor, self._device = model, processor, device
        self._tokenizer = processor.tokenizer

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def recognise(
        self, crops: Sequence[Pixels], options: JsonObject, *, prompt: str = "", skip_special_tokens: bool = True
    ) -> list[Reading]:
        """Returns what stands in each picture; `prompt`: tokens of the model's own that the decoder begins with."""
        readings: list[Reading] = []
        seed(options)
        for begin in range(0, len(crops), _TOGETHER):
            readings += self._batch(crops[begin : begin + _TOGETHER], options, prompt, skip_special_tokens)
        return readings

    def _batch(
        self, crops: Sequence[Pixels], options: JsonObject, prompt: str, skip_special_tokens: bool
    ) -> list[Reading]:
        inputs, offset = self._inputs(crops, prompt)
        options = {**EXACT, **options, "num_return_sequences": 1}
        context, room = context_tokens(self._model.config), answer_bound(options, 0)
        room = room if context is None else max(1, min(room, context - offset))
        own = self._model.generation_config
        config = generation_config(options, own, Prompt(inputs, text_tokens=0, offset=offset), room)
        if config.pad_token_id is None:
            config.pad_token_id = self._tokenizer.pad_token_id
        stop = as_list(options.get("stop"))
        criteria = [Stopped(), *([StopTexts(self._tokenizer, stop, offset)] if stop else [])]
        greedy = config.num_beams == 1
        config.return_dict_in_generate = config.output_logits = greedy
        output = generate(self._model, inputs, config, criteria)
        rows = (output.sequences if greedy else output)[:, offset:]
        logprobs = _logprobs(output.logits, rows) if greedy else None
        ends = as_list(config.eos_token_id)
        return [
            self._reading(row.tolist(), logprobs[place] if logprobs else None, ends, stop, skip_special_tokens)
            for place, row in enumerate(rows)
        ]

    def _inputs(self, crops: Sequence[Pixels], prompt: str) -> tuple[dict[str, Any], int]:
        pictures = [Image.fromarray(crop) for crop in crops]
        pixels = self._processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        inputs = {"pixel_values": pixels.to(self._device, self._model.dtype)}
        if not prompt:
            return inputs, 1
        tokens = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self._device)
        start = self._model.generation_config.decoder_start_token_id
        # generate() puts the start token before a prompt that lacks it.
        offset = int(tokens.shape[1]) + (start is not None and int(tokens[0, 0]) != start)
        return {**inputs, "decoder_input_ids": tokens.expand(len(crops), -1)}, offset

    def _reading(
        self,
        ids: list[int],
        logprobs: list[float] | None,
        ends: list[int],
        stop: list[str],
        skip_special_tokens: bool,
    ) -> Reading:
        length = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
        ids = ids[:length]
        text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        cut = cut_at(text, stop)
        ended = bool(ids and ids[-1] in ends) or cut != text
        return Reading(cut, logprobs[:length] if logprobs is not None else None, length, ended)


class CtcLineReader(Runner):
    """A recogniser of lines whose columns are classified (PP-OCR): its image processor knows the characters."""

    auto_model = AutoModelForTextRecognition
    auto_processor = AutoImageProcessor

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._forward = BatchForward(BatchTrial(name, model), self._columns, lambda columns: [columns])

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def recognise(self, crops: Sequence[Pixels], options: JsonObject) -> list[Reading]:
        """Returns what stands in each picture; those that are equally wide, as it sees them, go together."""
        encodings = [self.to_device(self.processor(Image.fromarray(crop), return_tensors="pt")) for crop in crops]
        return [self._read(columns) for columns in self._forward.outputs(encodings)]

    def _columns(self, encodings: Sequence[Encoded]) -> list[torch.Tensor]:
        """Returns the probabilities of each picture's columns (columns x characters)."""
        return list(self.model(**collated(encodings)).last_hidden_state.float())

    def _read(self, columns: torch.Tensor) -> Reading:
        best, chosen = columns.max(dim=-1)
        # A character goes on over several columns; between two equal ones stands a blank.
        begins = torch.ones_like(chosen, dtype=torch.bool)
        begins[1:] = chosen[1:] != chosen[:-1]
        begins &= chosen != _BLANK
        characters = self.processor.character_list
        ids = chosen[begins].tolist()
        text = "".join(characters[index] for index in ids)
        return Reading(text, best[begins].log().tolist(), len(ids), True)


def _logprobs(logits: Sequence[Any], rows: Any) -> list[list[float]]:
    """Returns the log-probability of each token of each row, as the model itself gave it."""
    steps = [step.float().log_softmax(-1) for step in logits]
    tokens = rows[:, -len(steps) :]
    found = torch.stack([step.gather(1, tokens[:, place : place + 1])[:, 0] for place, step in enumerate(steps)], 1)
    values: list[list[float]] = found.tolist()
    return values
