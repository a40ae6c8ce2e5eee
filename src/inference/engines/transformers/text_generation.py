"""Text generation with any causal language model, and with any that has an encoder and a decoder."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.generation import Generator, Prompt, option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps")


class CausalRunner(Runner):
    """A causal language model with its tokenizer."""

    auto_model = AutoModelForCausalLM
    auto_processor = AutoTokenizer
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._generator = Generator(name, model, processor, defaults=self.defaults)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Reads a few tokens."""
        self.model(torch.zeros((1, 4), dtype=torch.long, device=self.device))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Generates; `inputs` is a prompt or a list of messages."""
        encoded = encode(self.processor, inputs)
        raw = self._generator.answer(self._prompt(self.to_device(encoded)), options)
        raw["warnings"] += option_warnings(options, "text-generation", _NO_EFFECT)
        return raw

    def _prompt(self, inputs: dict[str, Any]) -> Prompt:
        tokens = int(inputs["input_ids"].shape[1])
        return Prompt(inputs, text_tokens=tokens, offset=tokens)


class Seq2SeqRunner(CausalRunner):
    """A model that reads the prompt with its encoder and writes the answer with its decoder."""

    auto_model = AutoModelForSeq2SeqLM
    # The documented ten tokens count the prompt too, of which its answer has none.
    defaults: ClassVar[Mapping[str, Any]] = {"min_length": 0}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Reads and writes a few tokens."""
        tokens = torch.zeros((1, 4), dtype=torch.long, device=self.device)
        begun = {"decoder_input_ids": tokens[:, :1]} if self._generator.is_encoder_decoder else {}
        self.model(input_ids=tokens, **begun)

    def _prompt(self, inputs: dict[str, Any]) -> Prompt:
        tokens = int(inputs["input_ids"].shape[1])
        # generate() gives back what the decoder begins with. The library maps language models that hear here too,
        # which have no encoder of texts: they give their prompt back.
        return Prompt(inputs, text_tokens=tokens, offset=1 if self._generator.is_encoder_decoder else tokens)


def encode(tokenizer: Any, inputs: Any) -> dict[str, Any]:
    """Returns token ids and mask of a prompt or of messages, by the chat template where there is one."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs
        try:
            encoding = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        except TemplateError as exc:
            raise InvalidInputError(f"the model's chat template refuses these messages: {exc}") from exc
    else:
        text = inputs if isinstance(inputs, str) else plain_prompt(inputs)
        encoding = tokenizer(text, return_tensors="pt")
    wanted = {name: encoding[name] for name in ("input_ids", "attention_mask") if name in encoding}
    if wanted["input_ids"].shape[1] == 0:
        raise InvalidInputError("Invalid input format: the prompt has no tokens for this model")
    return wanted


def plain_prompt(messages: list[dict[str, str]]) -> str:
    """Returns messages as a text, for models without a chat template."""
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    return "\n".join([*lines, "assistant:"])
