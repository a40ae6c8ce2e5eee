"""Windows: what each call of Whisper's decoder gave, as its long-form generation goes along a recording."""

from dataclasses import dataclass
from typing import Any


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
