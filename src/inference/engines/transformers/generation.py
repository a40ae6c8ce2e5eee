"""How answers are generated: the caller's options, the documented defaults, the model's own tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.options import TransformersOptions, default_of
from src.inference.types import JsonObject

# Tokens at the end of an answer that are read again at each step to find a stop text, beside its own length.
_TAIL_TOKENS = 16

EXACT: Mapping[str, Any] = {"do_sample": False, "min_length": 0}
"""Defaults of tasks that have one right answer, in place of the documented ones."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A model's encoded inputs, with what the bounds need to know of them.

    `text_tokens`: tokens of the text prompt, media tokens left out; what `max_length` counts. `offset`: tokens
    that `generate` repeats before the answer.
    """

    inputs: Mapping[str, Any]
    text_tokens: int
    offset: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a prompt is to be answered; `seed`: the caller's, if any; `logprobs`: whether they are wanted."""

    prompt: Prompt
    config: GenerationConfig
    stop: Sequence[str]
    seed: int | None
    logprobs: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """What the library's `generate` has ready before its first step.

    `config` has what the model's own generation config adds; `cache` is None where the model makes its own.
    """

    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    config: GenerationConfig
    cache: Any


class Generator:
    """Generates text with one model and reads it with its tokenizer."""

    def __init__(self, name: str, model: Any, tokenizer: Any, *, defaults: Mapping[str, Any] | None = None) -> None:
        self._name, self._model, self._tokenizer = name, model, tokenizer
        self._defaults = defaults or {}
        self.is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))

    @property
    def name(self) -> str:
        """What answers call the model."""
        return self._name

    @property
    def model(self) -> Any:
        """The model."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """What reads the model's tokens."""
        return self._tokenizer

    def answer(
        self, prompt: Prompt, options: JsonObject, *, skip_special_tokens: bool = True, **extra: Any
    ) -> JsonObject:
        """Returns `response` (a text, or several), `metadata` and `warnings`; `extra` goes to `generate`.

        Raises `InvalidInputError` for options that cannot be, `CancelledError` once its caller is gone.
        """
        plan = self.plan(prompt, options)
        config, stop = plan.config, plan.stop
        seed(options)
        criteria = [Stopped(), *([StopTexts(self._tokenizer, stop, prompt.offset)] if stop else [])]
        if plan.logprobs:
            config.return_dict_in_generate = config.output_logits = True
        output = generate(self._model, prompt.inputs, config, criteria, **extra)
        sequences = (output.sequences if plan.logprobs else output)[:, prompt.offset :]
        raw = self._read(sequences, config, stop, prompt, skip_special_tokens)
        if plan.logprobs:
            raw["metadata"]["logprobs"] = logprobs(output.logits, sequences[0])
        return raw

    def plan(self, prompt: Prompt, options: JsonObject) -> Plan:
        """Returns what the options ask for; raises `InvalidInputError` for those that cannot be."""
        options = {**self._defaults, **options}
        self._check_tokens(options)
        config = generation_config(options, self._model.generation_config, prompt, self._room(prompt, options))
        if config.pad_token_id is None:
            config.pad_token_id = self._pad_token(config.eos_token_id)
        wanted = bool(options.get("logprobs"))
        if wanted and config.num_beams > 1:
            raise InvalidInputError("option 'logprobs' needs num_beams 1")
        return Plan(prompt, config, as_list(options.get("stop")), options.get("seed"), wanted)

    def begin(self, plan: Plan) -> Begun:
        """Returns what `generate` would begin with; raises the `InvalidInputError` that it would raise."""
        begun: Begun = generate(self._model, plan.prompt.inputs, plan.config, [], custom_generate=_begun)
        return begun

    def read(self, ids: Sequence[int], plan: Plan) -> JsonObject:
        """Returns what `answer` does, for tokens that came by another way."""
        return self._read([ids], plan.config, plan.stop, plan.prompt, True)

    def _check_tokens(self, options: JsonObject) -> None:
        size = text_config(self._model.config).vocab_size
        for name in ("pad_token_id", "eos_token_id"):
            if any(token >= size for token in as_list(options.get(name))):
                raise InvalidInputError(f"option '{name}': this model has the tokens 0 to {size - 1}")

    def _room(self, prompt: Prompt, options: JsonObject) -> int:
        """Returns how many tokens the answer may have."""
        counted = 0 if self.is_encoder_decoder else prompt.text_tokens
        wanted = answer_bound(options, counted)
        context = context_tokens(self._model.config)
        # Learned positions are used up by media tokens and by what the decoder begins with too.
        room = wanted if context is None else min(wanted, context - prompt.offset)
        if room < 1:
            raise InvalidInputError(
                f"the prompt has {prompt.offset} tokens and the model's context is {context}: shorten the prompt",
                details={"prompt_tokens": prompt.offset, "context_tokens": context},
            )
        return room

    def _pad_token(self, eos: int | list[int] | None) -> int:
        if self._tokenizer.pad_token_id is not None:
            return int(self._tokenizer.pad_token_id)
        return eos[0] if isinstance(eos, list) else (eos or 0)

    def _read(
        self, sequences: Any, config: GenerationConfig, stop: Sequence[str], prompt: Prompt, skip_special_tokens: bool
    ) -> JsonObject:
        ends = as_list(config.eos_token_id)
        rows = [_until_end(row if isinstance(row, list) else row.tolist(), ends) for row in sequences]
        if len(rows) > 1:
            # One that a stop text ended is filled up while its neighbours go on.
            rows = [_without_padding(row, config.pad_token_id) for row in rows]
        texts = [self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens) for ids in rows]
        cut = [cut_at(text, stop) for text in texts]
        ended = (rows[0] and rows[0][-1] in ends) or cut[0] != texts[0]
        return {
            "response": cut if len(cut) > 1 else cut[0],
            "metadata": {
                "model": self._name,
                "tokens": sum(len(ids) for ids in rows),
                "finish_reason": "stop" if ended else "length",
                "prompt_tokens": prompt.text_tokens,
            },
            "warnings": [],
        }


def generate(
    model: Any, inputs: Mapping[str, Any], config: GenerationConfig, criteria: Sequence[StoppingCriteria], **extra: Any
) -> Any:
    """Returns what the model's `generate` does; stops within one step once nobody waits for it."""
    try:
        output = model.generate(
            **inputs, generation_config=config, stopping_criteria=StoppingCriteriaList(criteria), **extra
        )
    except ValueError as exc:
        # generate() refuses options that exclude each other in words that name them.
        raise InvalidInputError(f"these options do not go together: {exc}") from exc
    if stop_requested():
        raise CancelledError("generation was stopped")
    return output


def _begun(model: Any, input_ids: Any, **kwargs: Any) -> Begun:
    """Stands in for the library's decoding loop: it takes what that would be given."""
    return Begun(
        kwargs["logits_processor"],
        kwargs["stopping_criteria"],
        kwargs["generation_config"],
        kwargs.get("past_key_values"),
    )


def logprobs(logits: Sequence[Any], tokens: Any) -> list[float]:
    """Returns the log-probability of each generated token of the first sequence, as the model itself gave it.

    `logits`: one (sequences, vocabulary) per step; `tokens`: the generated ids, padding included.
    """
    return [
        float(torch.log_softmax(step[0].float(), dim=-1)[token])
        for step, token in zip(logits, tokens[-len(logits) :], strict=True)
    ]


def seed(options: JsonObject) -> None:
    """Sets torch's seed: the caller's, or a new one, or the seed of the last request would decide this answer too."""
    if options.get("seed") is not None:
        torch.manual_seed(options["seed"])
    else:
        torch.seed()


class Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends generation at the next step once somebody asked for it."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), stop_requested(), device=input_ids.device, dtype=torch.bool)


class StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Ends a sequence whose tail holds one of the stop texts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], offset: int) -> None:
        self._tokenizer, self._texts, self._offset = tokenizer, texts, offset
        self._tail = _TAIL_TOKENS + max(len(text.encode()) for text in texts)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        tails = input_ids[:, self._offset :][:, -self._tail :]
        found = [self.ends(row.tolist()) for row in tails]
        return torch.tensor(found, device=input_ids.device, dtype=torch.bool)

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether a stop text has come with the last of an answer's tokens."""
        decoded = self._tokenizer.decode(ids[-self._tail :], skip_special_tokens=True)
        return any(text in decoded for text in self._texts)


def answer_bound(options: JsonObject, prompt_tokens: int) -> int:
    """Returns the most tokens that the options allow the answer.

    An explicit `max_new_tokens` stands alone or beside an explicit `max_length` (prompt and answer
    together); with neither, both documented defaults hold. Raises `InvalidInputError` where the
    prompt leaves no room.
    """
    bounds = []
    if "max_new_tokens" in options or "max_length" not in options:
        bounds.append(options.get("max_new_tokens", default_of(TransformersOptions, "max_new_tokens")))
    if "max_length" in options or "max_new_tokens" not in options:
        total = options.get("max_length", default_of(TransformersOptions, "max_length"))
        if total <= prompt_tokens:
            raise InvalidInputError(
                f"the prompt has {prompt_tokens} tokens and max_length ({total}) counts prompt and answer together: "
                "set max_new_tokens, which counts the answer alone",
                details={"prompt_tokens": prompt_tokens, "max_length": total},
            )
        bounds.append(total - prompt_tokens)
    return int(min(bounds))


def generation_config(options: JsonObject, own: GenerationConfig, prompt: Prompt, room: int) -> GenerationConfig:
    """Returns how to generate; raises `InvalidInputError` for options that exclude each other."""

    def value(name: str) -> Any:
        return options.get(name, default_of(TransformersOptions, name))

    shortest = min(max(0, value("min_length") - prompt.text_tokens), room)
    # Temperature 0 means greedy to everybody but the library, which refuses it.
    sampling = bool(value("do_sample")) and value("temperature") > 0
    settings: JsonObject = {
        "max_new_tokens": room,
        "min_new_tokens": shortest or None,
        "do_sample": sampling,
        "num_beams": value("num_beams"),
        "repetition_penalty": value("repetition_penalty"),
        "no_repeat_ngram_size": value("no_repeat_ngram_size"),
        "num_return_sequences": value("num_return_sequences"),
        "bos_token_id": own.bos_token_id,
        "eos_token_id": options.get("eos_token_id", own.eos_token_id),
        "pad_token_id": options.get("pad_token_id", own.pad_token_id),
        "decoder_start_token_id": own.decoder_start_token_id,
        "forced_bos_token_id": own.forced_bos_token_id,
        "use_cache": True,
    }
    if sampling:
        settings |= {name: value(name) for name in ("temperature", "top_p", "top_k")}
    if value("num_beams") > 1:
        settings |= {name: value(name) for name in ("early_stopping", "length_penalty")}
    elif not sampling and value("num_return_sequences") > 1:
        raise InvalidInputError("num_return_sequences above 1 needs do_sample true (temperature above 0) or num_beams")
    if value("num_beams") > 1 and value("num_return_sequences") > value("num_beams"):
        raise InvalidInputError("num_return_sequences must not be above num_beams")
    return GenerationConfig(**settings)


def option_warnings(options: JsonObject, task: str, unused: Sequence[str]) -> list[str]:
    """Returns a warning for each option set that a task does not use; `unused`: those of other tasks."""
    warnings = [f"option '{name}' has no effect on {task}" for name in unused if options.get(name)]
    if options.get("device_map") not in (None, "auto"):
        warnings.append("option 'device_map' has no effect besides 'auto': take 'device'")
    if options.get("dtype") and options.get("torch_dtype") not in (None, options["dtype"]):
        warnings.append("option 'dtype' is used; 'torch_dtype' has no effect beside it")
    if options.get("batch_size", 1) > 1:
        warnings.append("option 'batch_size' has no effect: the request holds one input")
    for name in ("early_stopping", "length_penalty"):
        if options.get("num_beams", 1) == 1 and options.get(name) not in (None, default_of(TransformersOptions, name)):
            warnings.append(f"option '{name}' has no effect without num_beams above 1")
    return warnings


def text_config(config: Any) -> Any:
    """Returns the part of a model's config that is about text."""
    return config.get_text_config(decoder=True)


def context_tokens(config: Any) -> int | None:
    """Returns how many tokens the decoder can hold; None where nothing bounds it."""
    text = text_config(config)
    if getattr(text, "model_type", "") in ("t5", "mt5", "umt5", "longt5", "switch_transformers"):
        return None  # relative positions: its n_positions is what it was trained with, no bound
    found = getattr(text, "max_target_positions", None) or getattr(text, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


def cut_at(text: str, stops: Sequence[str]) -> str:
    """Returns the text before the first stop text in it."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else text


def as_list(value: Any) -> list[Any]:
    """Returns a value, or the values, as a list; [] for None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in ends:
            return ids[: position + 1]
    return ids


def _without_padding(ids: list[int], pad: int | None) -> list[int]:
    end = len(ids)
    while end and ids[end - 1] == pad:
        end -= 1
    return ids[:end]
