"""An answer's text while its tokens come: each piece leaves as soon as nothing that follows can change it."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from transformers.generation.streamers import BaseStreamer

from src.inference.engines.transformers.generation import cut_at

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Tokens after which what came before is no longer decoded at each step, and how many are decoded along with new ones.
_WINDOW, _CONTEXT = 48, 16
# Cleaning up takes blanks out before signs and within "do n't": never further back than this many characters.
_CLEANED = 8
_BROKEN = "\ufffd"


class TextPieces:
    """Turns tokens into pieces of text; together they are what decoding all tokens gives, up to the first stop text.

    A piece never ends within a character, nor within what may become a stop text. `emit` is called with each piece.
    """

    def __init__(
        self, tokenizer: Any, stop: Sequence[str], skip_special_tokens: bool, emit: Callable[[str], None]
    ) -> None:
        self._tokenizer, self._stop, self._skip, self._emit = tokenizer, tuple(stop), skip_special_tokens, emit
        self._ids: list[int] = []
        self._settled, self._begin = "", 0
        """The text of the tokens that are not decoded any more, and where those begin that are."""
        self._sent = ""
        self._margin = _CLEANED if getattr(tokenizer, "clean_up_tokenization_spaces", False) else 0
        self._specials = _special_ids(tokenizer) if skip_special_tokens else frozenset()
        self._in_bytes = False

    def put(self, ids: Sequence[int]) -> None:
        """Takes the next tokens of the answer."""
        self._ids += ids
        for token in ids:
            if token not in self._specials:
                self._in_bytes = self._is_byte(token)
        # Of bytes that follow one another, one that makes no character takes all the others with it.
        if not self._in_bytes:
            self._send(self._certain(self._text()))

    def end(self) -> None:
        """Emits what is left."""
        self._send(cut_at(self._decoded(self._ids), self._stop))

    def _send(self, text: str) -> None:
        if len(text) > len(self._sent) and text.startswith(self._sent):
            piece, self._sent = text[len(self._sent) :], text
            self._emit(piece)

    def _certain(self, text: str) -> str:
        """Returns the part of a text that nothing can change any more."""
        cut = cut_at(text, self._stop)
        if len(cut) < len(text):
            return cut
        text = text.rstrip(_BROKEN)
        text = text[: max(0, len(text) - self._margin)]
        return text[: len(text) - max((_begun(text, stop) for stop in self._stop), default=0)]

    def _text(self) -> str:
        recent = self._decoded(self._ids[self._begin :])
        text = self._settled + recent
        if len(self._ids) - self._begin > _WINDOW:
            begin = len(self._ids) - _CONTEXT
            tail = self._decoded(self._ids[begin:])
            # Where a tail reads otherwise by itself (half a character, a part of a word), the next one may not.
            if recent.endswith(tail):
                self._settled, self._begin = text[: len(text) - len(tail)], begin
        return text

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._skip))

    def _is_byte(self, token: int) -> bool:
        name = self._tokenizer.convert_ids_to_tokens(token)
        return isinstance(name, str) and _BYTE_TOKEN.fullmatch(name) is not None


class TokenPieces(BaseStreamer):  # type: ignore[misc]
    """What `generate` hands its tokens to, for one answer: they go on to its pieces."""

    def __init__(self, pieces: TextPieces) -> None:
        self._pieces, self._begun = pieces, False

    def put(self, value: Any) -> None:
        """Takes the tokens of a step; the first are the prompt's."""
        if self._begun:
            self._pieces.put(value.flatten().tolist())
        self._begun = True

    def end(self) -> None:
        """Emits what is left."""
        self._pieces.end()


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Returns the tokens that decoding leaves out; those of pictures and sounds have no name of their own."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {place for place, token in added.items() if token.special}


def _begun(text: str, stop: str) -> int:
    """Returns how many characters at the end of a text may be the beginning of a stop text."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
