"""Answers of several requests from one `generate`: padded on the left, each with bounds and an end of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from src.core.errors import CancelledError
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.batch_forward import of_like_cost
from src.inference.engines.transformers.batch_trial import BatchTrial, Steps
from src.inference.engines.transformers.collation import Encoded, collated, media_shape, structure, token_count
from src.inference.engines.transformers.generation import (
    Generator,
    Plan,
    Prompt,
    Stopped,
    StopTexts,
    context_tokens,
    generate,
    generation_config,
    seed,
    text_config,
)
from src.inference.options import TransformersOptions, default_of
from src.inference.types import JsonObject

# Logits that are kept for log-probabilities take no more memory than this.
_LOGIT_BYTES = 1 << 29
# Tokens of prompts and answers that a batch keeps at most: each takes some hundred kilobytes in a large model.
_CACHED_TOKENS = 1 << 14
_TRIED_TOKENS = 3
# How much padding may add to what reading the prompts of a batch costs. Writing the answers gains more than that by
# company, but not if one prompt is a hundred times as long as another; all prompts up to so many tokens are short.
_MOST_PADDING = 1.0
_CHEAP_TOKENS = 64
MEDIA = "prompts with media of different sizes"
_ASPECTS: Mapping[str, Callable[["Asked"], Any]] = {
    MEDIA: lambda asked: media_shape(asked.inputs),
    "prompts of different lengths": lambda asked: token_count(asked.inputs),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's place in its batch, how it is to be answered, and the options that say so."""

    place: int
    plan: Plan
    options: JsonObject

    @property
    def inputs(self) -> Encoded:
        """The encoded prompt."""
        return self.plan.prompt.inputs

    @property
    def room(self) -> int:
        """Tokens that the answer may have."""
        return int(self.plan.config.max_new_tokens)


def shares(options: JsonObject, defaults: Mapping[str, Any]) -> bool:
    """Whether the options let a request's answer be generated beside others, as it would be alone.

    Beams and several sequences take rows of their own, and a seed decides the draws of a whole batch.
    """
    asked = {**defaults, **options}
    drawn = asked.get("do_sample", default_of(TransformersOptions, "do_sample"))
    return (
        asked.get("num_beams", 1) == 1
        and asked.get("num_return_sequences", 1) == 1
        and not (drawn and asked.get("seed") is not None)
    )


class BatchGenerator(Generator):
    """Generates the answers to several prompts together, as far as the model's answers stay the same.

    `extra` goes to `generate`; `example`: encoded prompts with media of different sizes, to try the model with.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        trial: BatchTrial,
        *,
        defaults: Mapping[str, Any] | None = None,
        skip_special_tokens: bool = True,
        extra: Mapping[str, Any] | None = None,
        example: Callable[[], Sequence[Encoded]] | None = None,
    ) -> None:
        super().__init__(name, model, tokenizer, defaults=defaults)
        self._trial, self._skip_special_tokens, self._extra = trial, skip_special_tokens, extra or {}
        self._example = example

    def answers(self, prompts: Sequence[Prompt], options: Sequence[JsonObject]) -> list[JsonObject | Exception]:
        """Returns for each prompt what `answer` gives for it alone, or the error that it raises.

        `options` differ in the answers' bounds alone, and `shares` is true of them. Raises `CancelledError` once
        nobody waits for any of the answers.
        """
        found: list[JsonObject | Exception] = [CancelledError("not answered")] * len(prompts)
        groups: dict[Any, list[Asked]] = {}
        for place, (prompt, own) in enumerate(zip(prompts, options, strict=True)):
            asked = attempted(self._asked, place, prompt, own)
            if isinstance(asked, Exception):  # its own bounds leave it no room
                found[place] = asked
            else:
                groups.setdefault(self._kind(asked), []).append(asked)
        for group in groups.values():
            for batch in self._batches(group):
                for asked, raw in zip(batch, self._together(batch), strict=True):
                    found[asked.place] = raw
        return found

    def _asked(self, place: int, prompt: Prompt, options: JsonObject) -> Asked:
        return Asked(place, self.plan(prompt, options), {**self._defaults, **options})

    def _kind(self, asked: Asked) -> Any:
        """Returns what prompts must have in common to be tried together."""
        config, offset = asked.plan.config, asked.plan.prompt.offset
        # What counts tokens that stand in the prompt would count those that pad it.
        counts = config.repetition_penalty != 1.0 or config.no_repeat_ngram_size or self._stretches
        length = token_count(asked.inputs) if counts and not self.is_encoder_decoder else None
        begun = offset if self.is_encoder_decoder else offset - token_count(asked.inputs)
        return structure(asked.inputs), config.min_new_tokens, begun, length

    @property
    def _stretches(self) -> bool:
        """Whether positions are stretched by the longest prompt of a batch."""
        rotary = str(getattr(text_config(self._model.config), "rope_parameters", None))
        return any(f"'{kind}'" in rotary for kind in ("dynamic", "longrope"))

    def _batches(self, group: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
        example = None if self._example is None else partial(self._examples, group[0], self._example)
        for batch in self._trial.batches(group, _ASPECTS, self._first_logits, example):
            for alike in of_like_cost(batch, _reading_cost, len(batch), _MOST_PADDING):
                for fitting in self._within_context(alike):
                    most = self._most(fitting)
                    yield from (fitting[place : place + most] for place in range(0, len(fitting), most))

    def _within_context(self, batch: Sequence[Asked]) -> Iterable[Sequence[Asked]]:
        """Returns a batch, or its prompts by length where padding would take them beyond what the model can hold."""
        context, longest = context_tokens(self._model.config), max(token_count(asked.inputs) for asked in batch)
        if self.is_encoder_decoder or context is None or longest + max(asked.room for asked in batch) <= context:
            return [batch]
        lengths: dict[int, list[Asked]] = {}
        for asked in batch:
            lengths.setdefault(token_count(asked.inputs), []).append(asked)
        return lengths.values()

    def _most(self, batch: Sequence[Asked]) -> int:
        """Returns how many prompts may go together for the memory that their tokens and log-probabilities take."""
        room = max(asked.room for asked in batch)
        most = _CACHED_TOKENS // (room + max(token_count(asked.inputs) for asked in batch))
        if batch[0].plan.logprobs:
            most = min(most, _LOGIT_BYTES // int(4 * room * text_config(self._model.config).vocab_size))
        return max(1, most)

    @staticmethod
    def _examples(asked: Asked, example: Callable[[], Sequence[Encoded]]) -> list[Asked]:
        plan = asked.plan
        return [replace(asked, plan=replace(plan, prompt=replace(plan.prompt, inputs=inputs))) for inputs in example()]

    def _together(self, batch: Sequence[Asked]) -> Sequence[JsonObject | Exception]:
        if len(batch) > 1:
            return self._generated(batch)
        alone = partial(self.answer, skip_special_tokens=self._skip_special_tokens, **self._extra)
        return [attempted(alone, asked.plan.prompt, asked.options) for asked in batch]

    def _generated(self, batch: Sequence[Asked]) -> list[JsonObject | Exception]:
        first, rooms = batch[0].plan, [asked.room for asked in batch]
        config, stop = first.config, first.stop
        config.max_new_tokens = max(rooms)
        config.return_dict_in_generate = config.output_logits = first.logprobs
        inputs, more = self._inputs(batch, config)
        offset = first.prompt.offset + more
        ends = RowEnds(rooms, offset, StopTexts(self._tokenizer, stop, offset) if stop else None)
        seed(batch[0].options)
        output = generate(self._model, inputs, config, [Stopped(), ends], **self._extra)
        rows = [
            row[offset : offset + length]
            for row, length in zip(output.sequences if first.logprobs else output, ends.lengths, strict=True)
        ]
        answers = [
            self._read(row[None], config, stop, asked.plan.prompt, self._skip_special_tokens)
            for row, asked in zip(rows, batch, strict=True)
        ]
        if first.logprobs:
            for answer, values in zip(answers, _logprobs(output.logits, rows), strict=True):
                answer["metadata"]["logprobs"] = values[: answer["metadata"]["tokens"]]
        return [*answers]

    def _inputs(self, batch: Sequence[Asked], config: GenerationConfig) -> tuple[dict[str, Any], int]:
        """Returns the model's inputs, and by how much padding made the first prompt longer."""
        encodings = [asked.inputs for asked in batch]
        # Not the caller's own token to fill answers up with: that may be one that prompts have a use for.
        pad = self._pad_token(config.eos_token_id)
        inputs = collated(encodings, pad_token=pad, left=not self.is_encoder_decoder)
        return inputs, 0 if self.is_encoder_decoder else token_count(inputs) - token_count(encodings[0])

    def _first_logits(self, batch: Sequence[Asked]) -> list[Steps]:
        """Returns the logits of the first few tokens of each answer."""
        first, own = batch[0], self._model.generation_config
        tokens = min([_TRIED_TOKENS, *(asked.room for asked in batch)])
        config = generation_config({**first.options, "do_sample": False}, own, first.plan.prompt, tokens)
        config.min_new_tokens, config.pad_token_id = tokens, first.plan.config.pad_token_id
        config.return_dict_in_generate = config.output_logits = True
        inputs, _ = self._inputs(batch, config)
        output = generate(self._model, inputs, config, [], **self._extra)
        return [[step[place] for step in output.logits] for place in range(len(batch))]


def _reading_cost(asked: Asked) -> int:
    return max(_CHEAP_TOKENS, token_count(asked.inputs))


class RowEnds(StoppingCriteria):  # type: ignore[misc]
    """Ends each row of a batch at its own bound or stop text; `lengths`: the tokens that belong to each answer."""

    def __init__(self, rooms: Sequence[int], offset: int, stop: StopTexts | None) -> None:
        self.lengths = list(rooms)
        self._offset, self._stop = offset, stop

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        made = input_ids.shape[1] - self._offset
        if self._stop is not None:
            found = self._stop(input_ids, scores).tolist()
            stopped = zip(found, self.lengths, strict=True)
            self.lengths = [min(made, length) if ends else length for ends, length in stopped]
        return torch.tensor([made >= length for length in self.lengths], device=input_ids.device)


def _logprobs(logits: Sequence[Any], rows: Sequence[Any]) -> list[list[float]]:
    """Returns the log-probability of each token of each row, as the model itself gave it."""
    values: list[list[float]] = [[] for _ in rows]
    for place, step in enumerate(logits):
        likelihoods = torch.log_softmax(step.float(), dim=-1)
        for row, own, found in zip(rows, likelihoods, values, strict=True):
            if place < len(row):
                found.append(float(own[row[place]]))
    return values
