"""What a generation is asked, and what comes of it."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from src.testing.fake_ollama.options import Options
from src.testing.fake_ollama.store import StoredModel
from src.testing.fake_ollama.text import fingerprint, token_id
from src.testing.fake_ollama.wire import JsonObject

IMAGE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a prompt; `images` holds digests."""

    role: str
    content: str
    images: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """How long the message is."""
        return len(self.content.split()) + IMAGE_TOKENS * len(self.images)


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation, whatever endpoint it came through; `extra` is what else the text depends on."""

    stored: StoredModel
    turns: tuple[Turn, ...]
    options: Options
    keep_alive: float | None
    form: Any = None
    think: bool = False
    extra: Any = None

    @property
    def key(self) -> str:
        """What the text is a function of."""
        turns = [[turn.role, turn.content, turn.images] for turn in self.turns]
        return fingerprint([self.stored.model.digest, turns, self.options.sampling, self.form, self.extra])

    @property
    def context_length(self) -> int:
        """Tokens that the model can look at for this request."""
        return min(self.options.num_ctx, self.stored.model.context_length)

    @property
    def prompt_count(self) -> int:
        """Tokens of the prompt; one too long is cut in silence, as Ollama does."""
        return min(1 + sum(turn.tokens for turn in self.turns), self.context_length)


@dataclass(frozen=True, slots=True)
class Piece:
    """Text as it leaves."""

    text: str
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a generation ended; `counts` and `context` as the last line of an answer carries them."""

    reason: Literal["stop", "length"]
    counts: JsonObject
    context: list[int]


@dataclass(slots=True)
class Account:
    """What a generation has used so far; times in nanoseconds of a clock that only runs forward."""

    started: int = field(default_factory=time.perf_counter_ns)
    loaded: int = 0
    evaluated: int = 0
    said: list[str] = field(default_factory=list)
    complete: bool = False

    def load_done(self) -> None:
        """The model is loaded."""
        self.loaded = self.evaluated = time.perf_counter_ns()

    def token(self, token: str) -> None:
        """A token is there; the first one ends the evaluation of the prompt."""
        if not self.said:
            self.evaluated = time.perf_counter_ns()
        self.said.append(token)

    def outcome(self, ask: Ask) -> Outcome:
        """Returns the outcome as it stands now."""
        now = time.perf_counter_ns()
        counts = {
            "total_duration": now - self.started,
            "load_duration": self.loaded - self.started,
            "prompt_eval_count": ask.prompt_count,
            "prompt_eval_duration": self.evaluated - self.loaded,
            "eval_count": len(self.said),
            "eval_duration": now - self.evaluated,
        }
        words = [word for turn in ask.turns for word in turn.content.split()]
        context = [token_id(token) for token in [*words, *self.said]]
        return Outcome("stop" if self.complete else "length", counts, context)
