"""Going along with Whisper's long-form generation: what is sure is told, and it ends where its tokens or callers do."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.answer_pieces import Said
from src.inference.engines.transformers.step_text import TextPieces

_BEYOND = 1 << 40
"""Frames that no recording has."""


class Following:
    """What one call of `generate` is watched with.

    `tokens`: how many all its windows may have together, None for any number; `text`: what tells the text, if anything.
    `cut`: whether it ended before the recording did.
    """

    def __init__(self, tokens: int | None, text: "WindowText | None") -> None:
        self.text, self.cut = text, False
        self._budget = None if tokens is None else Budget(tokens)
        self._left: list[int] = []

    @property
    def criteria(self) -> list[StoppingCriteria]:
        """What ends a window early."""
        return [] if self._budget is None else [self._budget]

    def progress(self, places: Any) -> None:
        """Takes what the library tells before each window: the place and the end of each recording, in frames."""
        _end_if_stopped()
        self._left = [int(end - place) for place, end in places]

    @contextmanager
    def along(self, model: Any) -> Iterator[None]:
        """Has the model tell of each window, and lets its loop end when its tokens are spent.

        The library has no other way out of the loop that keeps what was heard.
        """
        found = model._retrieve_segment

        def heard(**window: Any) -> tuple[list[Any], Any]:
            segments, frames = found(**window)
            _end_if_stopped()
            if self.text is not None:
                self.text.window([token for segment in segments for token in segment["tokens"].tolist()])
            if self._budget is not None and self._budget.spent:
                self.cut = self.cut or int(frames) < self._left[window["prev_idx"]]
                frames = _BEYOND
            return segments, frames

        model._retrieve_segment = heard
        try:
            yield
        finally:
            del model._retrieve_segment


class Budget(StoppingCriteria):  # type: ignore[misc]
    """Ends generation once all windows together have used up their tokens."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens

    @property
    def spent(self) -> bool:
        """Whether there are none left."""
        return self._left <= 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._left -= 1
        return torch.full((input_ids.shape[0],), self.spent, device=input_ids.device, dtype=torch.bool)


class WindowText(BaseStreamer):  # type: ignore[misc]
    """Tells the text of a recording window by window, and within a window as far as it is sure to stay.

    `first_time`: the first of the tokens that stand for times; None where there are none.
    """

    def __init__(self, tokenizer: Any, said: Said, first_time: int | None) -> None:
        self._said, self._first_time, self._text = said, first_time, ""
        self._pieces = TextPieces(tokenizer, (), True, self._add)
        self._tokens, self._given = list[int](), 0

    def put(self, value: Any) -> None:
        """Takes a window's prompt, which begins it, or its next token."""
        if value.ndim > 1:
            return
        self._tokens += value.tolist()
        self._give(self._tokens[: sure(self._tokens, self._first_time)])

    def end(self) -> None:
        """Does nothing: `window` says what a window comes to."""

    def window(self, tokens: Sequence[int]) -> None:
        """Takes what counts of the window that has ended."""
        self._give(tokens)
        self._tokens, self._given = [], 0

    def _give(self, tokens: Sequence[int]) -> None:
        if len(tokens) > self._given:
            self._pieces.put(tokens[self._given :])
            self._given = len(tokens)

    def _add(self, text: str) -> None:
        self._text = (self._text + text).lstrip()
        self._said(self._text)


def sure(tokens: Sequence[int], first_time: int | None) -> int:
    """Returns how many of a window's first tokens are sure to count.

    Two times, one behind the other, end a segment; from then on what follows counts once its segment ends, since a
    window's last segment is heard again if the window's end cuts it.
    """
    if first_time is None:
        return len(tokens)
    pairs = [
        place for place, (one, two) in enumerate(itertools.pairwise(tokens)) if one >= first_time and two >= first_time
    ]
    return pairs[-1] + 2 if pairs else len(tokens)


def _end_if_stopped() -> None:
    if stop_requested():
        raise CancelledError("transcription was stopped")
