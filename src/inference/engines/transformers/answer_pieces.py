"""An answer's text on its way out: each character once, as soon as it cannot change any more."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers.generation.streamers import BaseStreamer

from src.inference.engines.base import emit, is_streamed
from src.inference.engines.transformers.generation import as_list
from src.inference.engines.transformers.step_text import TextPieces
from src.inference.types import JsonObject

Said = Callable[[str], None]
"""Takes the text of an answer, or of a part of one, as far as it goes."""


class AnswerPieces:
    """Emits what an answer's text has grown by; together the pieces are the text."""

    def __init__(self) -> None:
        self._told = ""

    def upto(self, text: str) -> None:
        """Emits the text behind what was emitted; blanks at its end wait, since the answer may end there."""
        self.finish(text.rstrip())

    def finish(self, text: str) -> None:
        """Emits what is left of the whole answer."""
        if len(text) > len(self._told) and text.startswith(self._told):
            emit(text[len(self._told) :])
            self._told = text


class TokenText(BaseStreamer):  # type: ignore[misc]
    """What `generate` hands its tokens to: it tells the text that they make so far."""

    def __init__(
        self, tokenizer: Any, said: Said, stop: Sequence[str] = (), *, skip_special_tokens: bool = True
    ) -> None:
        self._text, self._said, self._begun = "", said, False
        self._pieces = TextPieces(tokenizer, stop, skip_special_tokens, self._add)

    def put(self, value: Any) -> None:
        """Takes the tokens of a step; the first are the prompt's."""
        if self._begun:
            self._pieces.put(value.flatten().tolist())
        self._begun = True

    def end(self) -> None:
        """Tells what is left."""
        self._pieces.end()

    def _add(self, text: str) -> None:
        # No answer begins with blanks.
        self._text = (self._text + text).lstrip()
        self._said(self._text)


def followed(tokenizer: Any, said: Said | None, options: JsonObject, *, skip_special_tokens: bool = True) -> JsonObject:
    """Returns what `generate` is given so that `said` is told its answer; nothing for beams and several sequences."""
    if said is None or max(options.get("num_beams", 1), options.get("num_return_sequences", 1)) > 1:
        return {}
    stop = as_list(options.get("stop"))
    return {"streamer": TokenText(tokenizer, said, stop, skip_special_tokens=skip_special_tokens)}


def told() -> AnswerPieces | None:
    """Returns what emits the running answer; None where nobody follows it."""
    return AnswerPieces() if is_streamed() else None
