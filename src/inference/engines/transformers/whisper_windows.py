"""Windows: what each call of Whisper's decoder gave, as its long-form generation goes along a recording."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria


@dataclass(frozen=True, slots=True)
class Window:
    """One call of the decoder: `sequence` (prompt and answer), `start` of the answer, the segments kept of it."""

    sequence: Any
    start: int
    logits: Any
    segments: list[Any]

    def generated(self, end: int) -> list[int]:
        """Returns the tokens generated, with the one that ends them."""
        ids: list[int] = self.sequence[self.start :].tolist()
        return ids[: ids.index(end) + 1] if end in ids else ids

    def answer(self) -> list[int]:
        """Returns the tokens that count: what follows the last time before the window's end is heard again."""
        if not self.segments:
            return list(self.sequence[self.start :].tolist())
        return [token for segment in self.segments for token in segment["tokens"].tolist()]


class Budget(StoppingCriteria):  # type: ignore[misc]
    """Ends generation once all windows together have used up their tokens; later ones end with their first."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._left -= 1
        return torch.full((input_ids.shape[0],), self._left <= 0, device=input_ids.device, dtype=torch.bool)


def within(windows: list[Window], bound: int | None, end: int) -> tuple[list[Window], bool]:
    """Returns the first windows that have no more tokens than the bound, and whether any were left out."""
    kept, left = list[Window](), bound
    for window in windows:
        if left is not None:
            left -= len(window.generated(end))
            if left < 0:
                return kept, True
        kept.append(window)
    return kept, False


def windows_of(segments: list[Any]) -> list[Window]:
    """Returns segments under the windows that they come from, in order."""
    found: dict[int, list[Any]] = {}
    for segment in segments:
        found.setdefault(id(segment["result"]), []).append(segment)
    windows = []
    for same in found.values():
        result = same[0]["result"]
        is_dict = isinstance(result, dict)
        sequence, logits = (result["sequences"], result.get("logits")) if is_dict else (result, None)
        windows.append(Window(sequence, same[0]["idxs"][0], logits, same))
    return windows
