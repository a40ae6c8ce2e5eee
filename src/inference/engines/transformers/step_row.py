"""Row: one request on its way through the model, token by token."""

from collections.abc import Callable
from typing import Any

import torch
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from src.inference.engines.transformers.generation import Begun, Generator, Plan, StopTexts, as_list
from src.inference.engines.transformers.step_choice import Choice, Chooser
from src.inference.engines.transformers.step_text import TextPieces
from src.inference.types import JsonObject


class Row:
    """A request with its prompt, its answer so far, and what ends it.

    `tokens`: prompt and answer so far; `read`: how many of them the model has in its cache; `most`: how many there can
    be; `is_running`: whether all but the last have been read; `alone`: whether it is to be read by itself, after a
    failure beside others; `gone`: whether nobody waits for it.
    """

    def __init__(self, key: int, options: JsonObject, plan: Plan, generator: Generator) -> None:
        self.key, self.options = key, options
        self.tokens: list[int] = plan.prompt.inputs["input_ids"][0].tolist()
        self.read = 0
        self.is_running = self.alone = self.gone = False
        self._plan, self._generator = plan, generator
        self._prompt_tokens = len(self.tokens)
        self._logprobs: list[float] = []
        self._pieces: TextPieces | None = None

    def begin(self, chooser: Chooser) -> None:
        """Learns how its tokens are chosen and what ends it; raises what `generate` would raise."""
        begun = self._generator.begin(self._plan)
        config, stop = begun.config, self._plan.stop
        draws = chooser.generator(self._plan.seed) if config.do_sample else None
        self.choice = Choice(begun.processors, config.min_new_tokens or 0, draws)
        self.most = int(config.max_length)
        self._ends = frozenset(as_list(config.eos_token_id))
        self._stop = StopTexts(self._generator.tokenizer, stop, 0) if stop else None
        self._criteria = _others(begun)

    def stream(self, emit: Callable[[str], None]) -> None:
        """Has each piece of the answer handed to `emit` as it comes."""
        self._pieces = TextPieces(self._generator.tokenizer, self._plan.stop, True, emit)

    @property
    def unread(self) -> list[int]:
        """The tokens that the model has not got yet."""
        return self.tokens[self.read :]

    @property
    def answer(self) -> list[int]:
        """The tokens of the answer so far."""
        return self.tokens[self._prompt_tokens :]

    def text(self) -> torch.Tensor | None:
        """Returns prompt and answer so far, 1 x tokens; None where the choice of the next token needs none."""
        return self._text() if self.choice.reads_text(len(self.tokens) - self._prompt_tokens) else None

    def take(self, token: int, logits: torch.Tensor) -> bool:
        """Adds a token, chosen of logits (vocabulary); returns whether it is the last."""
        self.tokens.append(token)
        if self._plan.logprobs:
            self._logprobs.append(float(torch.log_softmax(logits, dim=-1)[token]))
        if self._pieces is not None:
            self._pieces.put([token])
        return (
            token in self._ends
            or len(self.tokens) >= self.most
            or (self._stop is not None and self._stop.ends(self.answer))
            or any(bool(criterion(self._text(), None).all()) for criterion in self._criteria)
        )

    def finished(self) -> JsonObject:
        """Returns the raw answer, once the last of its text has been emitted."""
        raw = self._generator.read(self.answer, self._plan)
        if self._plan.logprobs:
            raw["metadata"]["logprobs"] = self._logprobs
        if self._pieces is not None:
            self._pieces.end()
        return raw

    def again(self) -> None:
        """Has the model read everything once more: its cache has lost this text."""
        self.read, self.is_running = 0, False

    def _text(self) -> torch.Tensor:
        return torch.tensor([self.tokens], device=self._plan.prompt.inputs["input_ids"].device)


def _others(begun: Begun) -> list[Any]:
    """Returns the criteria that a row does not look after by itself."""
    return [each for each in begun.criteria if not isinstance(each, MaxLengthCriteria | EosTokenCriteria)]
