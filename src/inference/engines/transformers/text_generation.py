"""Text generation with any causal language model, and with any that has an encoder and a decoder."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from src.core.errors import InvalidInputError
from src.inference.engines.base import Scheduler, emit, is_streamed
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_generation import BatchGenerator, shares
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.generation import Generator, Prompt, as_list, option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.step_scheduler import StepScheduler
from src.inference.engines.transformers.step_text import TextPieces, TokenPieces
from src.inference.models.base import texts_of
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
        self._trial = BatchTrial(name, model)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Reads a few tokens."""
        self.model(torch.zeros((1, 4), dtype=torch.long, device=self.device))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Generates; `inputs` is a prompt or a list of messages. The text is emitted as it comes."""
        prompt = self._encoded(inputs)
        answer = self._streamed if is_streamed() else self._generator.answer
        return _finished(answer(prompt, options), options)

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Whatever is asked may go together; where the model does not bear it, batches are made smaller."""
        return () if shares(options, self.defaults) else None

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Generates the answers to several prompts together."""
        generator = BatchGenerator(self.name, self.model, self.processor, self._trial, defaults=self.defaults)
        prompts = [attempted(self._encoded, each) for each in inputs]
        raws = together(prompts, lambda encoded: generator.answers(encoded, [options] * len(encoded)))
        return [raw if isinstance(raw, Exception) else _finished(raw, options) for raw in raws]

    def scheduler(self, note: Callable[[JsonObject, JsonObject], JsonObject]) -> Scheduler | None:
        """Returns what runs requests together, step by step; `note` adds the engine's warnings to an answer."""
        return StepScheduler(
            self._generator, self._encoded, lambda raw, options: note(_finished(raw, options), options)
        )

    def _streamed(self, prompt: Prompt, options: JsonObject) -> JsonObject:
        """Returns the answer once its text is emitted: as it comes, or whole where several texts grow at once."""
        if options.get("num_beams", 1) > 1 or options.get("num_return_sequences", 1) > 1:
            raw = self._generator.answer(prompt, options)
            emit(texts_of(raw["response"])[0])
            return raw
        pieces = TextPieces(self.processor, as_list(options.get("stop")), True, emit)
        return self._generator.answer(prompt, options, streamer=TokenPieces(pieces))

    def _encoded(self, inputs: Any) -> Prompt:
        return self._prompt(self.to_device(encode(self.processor, inputs)))

    def _prompt(self, inputs: dict[str, Any]) -> Prompt:
        tokens = int(inputs["input_ids"].shape[1])
        return Prompt(inputs, text_tokens=tokens, offset=tokens)


class Seq2SeqRunner(CausalRunner):
    """A model that reads the prompt with its encoder and writes the answer with its decoder."""

    auto_model = AutoModelForSeq2SeqLM
    # The documented ten tokens count the prompt too, of which its answer has none.
    defaults: ClassVar[Mapping[str, Any]] = {"min_length": 0}

    def scheduler(self, note: Callable[[JsonObject, JsonObject], JsonObject]) -> None:
        """Returns None: what an encoder has read is in no slot."""

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


def _finished(raw: JsonObject, options: JsonObject) -> JsonObject:
    raw["warnings"] += option_warnings(options, "text-generation", _NO_EFFECT)
    return raw


def plain_prompt(messages: list[dict[str, str]]) -> str:
    """Returns messages as a text, for models without a chat template."""
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    return "\n".join([*lines, "assistant:"])
