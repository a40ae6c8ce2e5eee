"""Text generation with any causal language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from src.core.errors import CancelledError, InvalidInputError, ModelLoadError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.placement import dtype_name, pick_device, pick_dtype
from src.inference.options import TransformersOptions, default_of
from src.inference.types import JsonObject
from src.inference.workers.failures import is_out_of_memory

# Tokens at the end of an answer that are read again at each step to find a stop text, beside its own length.
_TAIL_TOKENS = 16
_NO_EFFECT = ("language", "task", "return_timestamps")


class TextGenerationRunner:
    """A causal language model with its tokenizer."""

    def __init__(self, name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self._model = model
        self._tokenizer: Any = tokenizer
        self.device = str(model.device)
        self.dtype = dtype_name(model.dtype)

    @classmethod
    def load(cls, name: str, path: Path, *, device: str, dtype: str, trust_remote_code: bool) -> "TextGenerationRunner":
        """Loads a folder; raises `ModelLoadError` with the library's reason."""
        target, number_format = pick_device(device), pick_dtype(dtype)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
            model = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=number_format,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                weights_only=True,
            )
        except Exception as exc:
            # Broken files surface as errors of whichever library met them first.
            if is_out_of_memory(exc):
                raise
            raise ModelLoadError(f"Model '{name}' could not be loaded for text generation: {exc}") from exc
        model = model.to(target).eval()
        return cls(name, model, tokenizer)

    def release(self) -> None:
        """Drops the weights."""
        self._model = None

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Reads a few tokens."""
        self._model(torch.zeros((1, 4), dtype=torch.long, device=self.device))

    def parameter_bytes(self) -> int:
        """Returns the bytes of the weights, tied ones once."""
        tensors = {t.data_ptr(): t for t in [*self._model.parameters(), *self._model.buffers()]}
        return sum(tensor.nbytes for tensor in tensors.values())

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Generates; `inputs` is a prompt or a list of messages."""
        self._check_tokens(options)
        encoded = {name: tensor.to(self.device) for name, tensor in self._encode(inputs).items()}
        prompt_tokens = int(encoded["input_ids"].shape[1])
        room = self._room(prompt_tokens, options)
        config = generation_config(options, self._model.generation_config, prompt_tokens, room)
        if config.pad_token_id is None:
            config.pad_token_id = self._pad_token(config.eos_token_id)
        if options.get("seed") is not None:
            torch.manual_seed(options["seed"])
        else:
            torch.seed()  # or the seed of the last request would decide this answer too
        stop = _as_list(options.get("stop"))
        criteria = StoppingCriteriaList(
            [_Stopped(), *([_StopTexts(self._tokenizer, stop, prompt_tokens)] if stop else [])]
        )
        output = self._generate(encoded, config, criteria)
        if stop_requested():
            raise CancelledError("generation was stopped")
        return self._answer(output[:, prompt_tokens:], config, stop, prompt_tokens, options)

    def _generate(self, encoded: dict[str, Any], config: GenerationConfig, criteria: StoppingCriteriaList) -> Any:
        try:
            return self._model.generate(**encoded, generation_config=config, stopping_criteria=criteria)
        except ValueError as exc:
            # generate() refuses options that exclude each other in words that name them.
            raise InvalidInputError(f"these options do not go together: {exc}") from exc

    def _encode(self, inputs: Any) -> dict[str, Any]:
        if self._tokenizer.chat_template:
            messages = [{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs
            try:
                encoding = self._tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
                )
            except TemplateError as exc:
                raise InvalidInputError(f"the model's chat template refuses these messages: {exc}") from exc
        else:
            text = inputs if isinstance(inputs, str) else plain_prompt(inputs)
            encoding = self._tokenizer(text, return_tensors="pt")
        wanted = {name: encoding[name] for name in ("input_ids", "attention_mask") if name in encoding}
        if wanted["input_ids"].shape[1] == 0:
            raise InvalidInputError("Invalid input format: the prompt has no tokens for this model")
        return wanted

    def _check_tokens(self, options: JsonObject) -> None:
        size = self._model.config.get_text_config().vocab_size
        for name in ("pad_token_id", "eos_token_id"):
            if any(token >= size for token in _as_list(options.get(name))):
                raise InvalidInputError(f"option '{name}': this model has the tokens 0 to {size - 1}")

    def _room(self, prompt_tokens: int, options: JsonObject) -> int:
        """Returns how many tokens the answer may have."""
        wanted = answer_bound(options, prompt_tokens)
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        room = wanted if context is None else min(wanted, context - prompt_tokens)
        if room < 1:
            raise InvalidInputError(
                f"the prompt has {prompt_tokens} tokens and the model's context is {context}: shorten the prompt",
                details={"prompt_tokens": prompt_tokens, "context_tokens": context},
            )
        return room

    def _pad_token(self, eos: int | list[int] | None) -> int:
        if self._tokenizer.pad_token_id is not None:
            return int(self._tokenizer.pad_token_id)
        return eos[0] if isinstance(eos, list) else (eos or 0)

    def _answer(
        self, sequences: Any, config: GenerationConfig, stop: Sequence[str], prompt_tokens: int, options: JsonObject
    ) -> JsonObject:
        ends = _as_list(config.eos_token_id)
        rows = [_until_end(row.tolist(), ends) for row in sequences]
        if len(rows) > 1:
            # One that a stop text ended is filled up while its neighbours go on.
            rows = [_without_padding(row, config.pad_token_id) for row in rows]
        texts = [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
        cut = [cut_at(text, stop) for text in texts]
        ended = (rows[0] and rows[0][-1] in ends) or cut[0] != texts[0]
        return {
            "response": cut if len(cut) > 1 else cut[0],
            "metadata": {
                "model": self.name,
                "tokens": sum(len(ids) for ids in rows),
                "finish_reason": "stop" if ended else "length",
                "prompt_tokens": prompt_tokens,
            },
            "warnings": option_warnings(options),
        }


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends generation at the next step once somebody asked for it."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), stop_requested(), device=input_ids.device, dtype=torch.bool)


class _StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Ends a sequence whose tail holds one of the stop texts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], prompt_tokens: int) -> None:
        self._tokenizer, self._texts, self._prompt_tokens = tokenizer, texts, prompt_tokens
        self._tail = _TAIL_TOKENS + max(len(text.encode()) for text in texts)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        tails = input_ids[:, self._prompt_tokens :][:, -self._tail :]
        found = [
            any(text in decoded for text in self._texts)
            for decoded in (self._tokenizer.decode(row, skip_special_tokens=True) for row in tails)
        ]
        return torch.tensor(found, device=input_ids.device, dtype=torch.bool)


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


def generation_config(options: JsonObject, own: GenerationConfig, prompt_tokens: int, room: int) -> GenerationConfig:
    """Returns how to generate: the caller's options, the documented defaults, the model's own tokens."""

    def value(name: str) -> Any:
        return options.get(name, default_of(TransformersOptions, name))

    shortest = min(max(0, value("min_length") - prompt_tokens), room)
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


def option_warnings(options: JsonObject) -> list[str]:
    """Returns a warning for each option set that text generation does not use."""
    warnings = [f"option '{name}' has no effect on text-generation" for name in _NO_EFFECT if options.get(name)]
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


def plain_prompt(messages: list[dict[str, str]]) -> str:
    """Returns messages as a text, for models without a chat template."""
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    return "\n".join([*lines, "assistant:"])


def cut_at(text: str, stops: Sequence[str]) -> str:
    """Returns the text before the first stop text in it."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else text


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


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
