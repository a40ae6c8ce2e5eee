"""Waveforms: what a runner does to samples before its model hears them. Nothing is ever left out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.core.errors import InvalidInputError
from src.inference.types import JsonObject

Samples = NDArray[np.float32]

SHORTEST_SECONDS = 0.2
"""Shorter sounds are filled up with silence: convolutions and spectrograms need some samples to stand on."""
_FRAME_SECONDS = 0.02
# How far before a piece's end its cut may lie, as a share of the piece.
_SEARCHED = 1 / 3
# A cut this much quieter than the piece itself (20 dB) lies between words.
_QUIET = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a recording, from `start` to `end` seconds; `quiet_end`: whether it ends between words."""

    samples: Samples
    start: float
    end: float
    quiet_end: bool = True


def samples_of(audio: JsonObject, rate: int) -> Samples:
    """Returns decoded audio as samples of its own memory, at least `SHORTEST_SECONDS` of them.

    Raises `InvalidInputError` where there is not one sample, or they come at another rate than the model's.
    """
    if audio["rate"] != rate:
        raise InvalidInputError(f"`audio` has {audio['rate']} samples per second and the model wants {rate}")
    samples = np.array(audio["samples"], np.float32)
    if samples.ndim != 1 or not len(samples):
        raise InvalidInputError("`audio` holds no sound: not one sample; send a recording that is not empty")
    missing = round(SHORTEST_SECONDS * rate) - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def pieces_at_quiet_places(samples: Samples, rate: int, longest: float | None) -> list[Piece]:
    """Returns a recording in pieces of at most `longest` seconds (None: as one), cut where it is quietest."""
    pieces, start = list[Piece](), 0
    most = len(samples) if longest is None else int(longest * rate)
    while len(samples) - start > most:
        end, quiet = _quietest(samples[start : start + most], rate)
        pieces.append(Piece(samples[start : start + end], start / rate, (start + end) / rate, quiet))
        start += end
    return [*pieces, Piece(samples[start:], start / rate, len(samples) / rate)]


def overlapping(samples: Samples, size: int, stride: int) -> Iterator[tuple[Samples, int, int]]:
    """Yields windows of `size` samples, with how many at their start and end belong to their neighbours.

    Neighbours share twice the `stride`; the first window owns its start, and the last one its end.
    """
    start = 0
    while True:
        window = samples[start : start + size]
        last = start + size >= len(samples)
        yield window, stride if start else 0, 0 if last else stride
        if last:
            return
        start += size - 2 * stride


def spread(samples: Samples, size: int) -> list[Samples]:
    """Returns as few windows of `size` samples as cover a recording, evenly spread from its start to its end."""
    if len(samples) <= size:
        return [samples]
    count = -(-len(samples) // size)
    starts = np.linspace(0, len(samples) - size, count).round().astype(int)
    return [samples[start : start + size] for start in starts]


def feature_extractor_of(processor: Any) -> Any:
    """Returns the part of a processor that turns samples into features; it may be that part itself."""
    for name in ("feature_extractor", "audio_processor"):
        if getattr(processor, name, None) is not None:
            return getattr(processor, name)
    return processor


def sampling_rate_of(processor: Any) -> int:
    """Returns the samples per second that a model wants."""
    return int(getattr(feature_extractor_of(processor), "sampling_rate", None) or 16_000)


def _quietest(samples: Samples, rate: int) -> tuple[int, bool]:
    """Returns the middle of the quietest moment near the end of a piece, and whether it is quiet there."""
    frame = max(1, round(_FRAME_SECONDS * rate))
    first = int(len(samples) * (1 - _SEARCHED))
    frames = samples[first : first + (len(samples) - first) // frame * frame].reshape(-1, frame)
    loudness = np.sqrt((frames.astype(np.float64) ** 2).mean(1))
    # Three frames together: the closure of a stop consonant is as silent, but shorter.
    smooth = np.convolve(loudness, np.ones(3) / 3, "same") if len(loudness) >= 3 else loudness
    smooth[[0, -1]] = np.inf
    at = int(smooth.argmin())
    typical = float(np.sqrt((samples.astype(np.float64) ** 2).mean()))
    return first + at * frame + frame // 2, bool(smooth[at] <= _QUIET * typical)
