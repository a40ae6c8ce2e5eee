"""Where the lines and the words of a printed page are. It finds ink, and reads nothing.

For recognisers that read one line at a time. The page is upright, its lines are level, and it has one
ground that the ink differs from; darker or lighter does not matter.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]

MOST_LINES = 500
"""Lines found on one page at most."""
_LEAST_CONTRAST = 40.0
_LEAST_HEIGHT = 4
_WORD_GAP = 0.28
_WORD_GAPS = (0.2, 0.42)
"""Gaps between words are wider than this, in heights of the line's capitals; where exactly, the page itself tells."""
_COLUMN_GAP = 1.4


@dataclass(frozen=True, slots=True)
class TextLine:
    """A piece of a line between wide gaps: its box and its words' boxes, (left, top, right, bottom) in pixels."""

    box: Box
    words: tuple[Box, ...]


def find_lines(pixels: "NDArray[np.uint8]") -> list[TextLine]:
    """Returns the lines of a page, height x width x 3, from top to bottom and left to right; [] where it is blank."""
    ink = _ink(pixels)
    letters = _letters(ink)
    if not letters:
        return []
    height = _usual([bottom - top for _, top, _, bottom in letters])
    rows = _rows(letters, height)
    sizes = [_size(row, height) for row in rows]
    word_gap = _word_gap([gap / size for row, size in zip(rows, sizes, strict=True) for gap in _gaps(row)])
    lines = [piece for row, size in zip(rows, sizes, strict=True) for piece in _pieces(row, size, word_gap)]
    return lines[:MOST_LINES]


def crop(pixels: "NDArray[np.uint8]", box: Box, margin: float = 0.2) -> "NDArray[np.uint8]":
    """Returns what a box shows, with a margin in shares of its height."""
    left, top, right, bottom = box
    extra = max(2, round((bottom - top) * margin))
    height, width = pixels.shape[:2]
    return pixels[max(0, top - extra) : min(height, bottom + extra), max(0, left - extra) : min(width, right + extra)]


def _ink(pixels: "NDArray[np.uint8]") -> "NDArray[np.bool_]":
    """Returns where the page differs from its ground."""
    from scipy import ndimage

    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    # The ground is what most of a neighbourhood looks like: a coarse median that ignores the letters.
    step = max(1, min(grey.shape) // 64)
    coarse = ndimage.median_filter(grey[::step, ::step], size=9, mode="nearest")
    rows = np.minimum(np.arange(grey.shape[0]) // step, coarse.shape[0] - 1)
    columns = np.minimum(np.arange(grey.shape[1]) // step, coarse.shape[1] - 1)
    difference = np.abs(grey - coarse[rows][:, columns])
    return np.asarray(difference > max(_LEAST_CONTRAST, _otsu(difference)))


def _otsu(values: "NDArray[np.float32]") -> float:
    """Returns the level that parts two groups of values best."""
    counts, edges = np.histogram(values, bins=128, range=(0.0, 255.0))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[int(np.nanargmax(spread))]) * 0.8 if np.isfinite(spread).any() else 255.0


def _letters(ink: "NDArray[np.bool_]") -> list[Box]:
    """Returns the boxes of connected ink, without rules, frames, pictures and specks."""
    from scipy import ndimage

    labels, _ = ndimage.label(ink, structure=np.ones((3, 3)))
    found = []
    for place in ndimage.find_objects(labels):
        top, bottom, left, right = place[0].start, place[0].stop, place[1].start, place[1].stop
        wide, high = right - left, bottom - top
        is_rule = (wide > 12 * high and wide > 40) or (high > 12 * wide and high > 40)
        is_frame = high > ink.shape[0] * 0.5 and ink.shape[0] > 200
        if not is_rule and not is_frame and wide * high > 3:
            found.append((left, top, right, bottom))
    tall = [bottom - top for _, top, _, bottom in found if bottom - top >= _LEAST_HEIGHT]
    if not tall:
        return []
    usual = _usual(tall)
    return _stacked([box for box in found if box[3] - box[1] <= 6 * usual], usual)


def _usual(heights: list[int]) -> float:
    """Returns the usual height of letters; taller pieces count for more, or dots would decide."""
    return float(np.median(np.repeat(heights, heights)))


def _stacked(boxes: list[Box], height: float) -> list[Box]:
    """Joins pieces that stand close above each other: dots and their letters, thin strokes that came apart."""
    joined: list[Box] = []
    for box in sorted(boxes, key=lambda box: box[1]):
        for place in range(len(joined) - 1, max(-1, len(joined) - 60), -1):
            other = joined[place]
            shared = min(box[2], other[2]) - max(box[0], other[0])
            small = min(box[3] - box[1], other[3] - other[1]) < 0.7 * height
            if small and shared > 0.5 * min(box[2] - box[0], other[2] - other[0]) and box[1] - other[3] < 0.3 * height:
                joined[place] = _around([box, other])
                break
        else:
            joined.append(box)
    return joined


def _rows(letters: list[Box], height: float) -> list[list[Box]]:
    """Groups boxes that stand beside each other: whatever is tall first, dots and commas join the nearest."""
    tall = sorted((box for box in letters if box[3] - box[1] >= 0.5 * height), key=lambda box: box[1] + box[3])
    rows: list[list[Box]] = []
    bands: list[tuple[float, float]] = []
    for box in tall:
        for place in range(len(rows) - 1, max(-1, len(rows) - 6), -1):
            top, bottom = bands[place]
            overlap = min(bottom, box[3]) - max(top, box[1])
            if overlap > 0.5 * min(bottom - top, box[3] - box[1]):
                rows[place].append(box)
                count = len(rows[place])
                bands[place] = (top + (box[1] - top) / count, bottom + (box[3] - bottom) / count)
                break
        else:
            rows.append([box])
            bands.append((float(box[1]), float(box[3])))
    for box in letters:
        if box[3] - box[1] < 0.5 * height:
            _join(box, rows, bands, height)
    order = sorted(range(len(rows)), key=lambda place: bands[place][0])
    return [sorted(rows[place]) for place in order]


def _join(box: Box, rows: list[list[Box]], bands: list[tuple[float, float]], height: float) -> None:
    """Adds a small piece of ink to the row whose band is nearest, if one is near."""
    middle = (box[1] + box[3]) / 2
    distances = [max(top - middle, middle - bottom, 0.0) for top, bottom in bands]
    nearest = int(np.argmin(distances))
    beside = any(box[0] - 4 * height < other[2] and other[0] < box[2] + 4 * height for other in rows[nearest])
    if distances[nearest] < 0.7 * height and beside:
        rows[nearest].append(box)


def _size(row: list[Box], height: float) -> float:
    """Returns how tall a row's capitals are, about."""
    return max(float(np.percentile([bottom - top for _, top, _, bottom in row], 90)), height)


def _gaps(row: list[Box]) -> list[int]:
    """Returns the gap in front of each box of a row but the first; below 0 where they overlap."""
    ends = np.maximum.accumulate([box[2] for box in row])
    return [box[0] - int(end) for box, end in zip(row[1:], ends, strict=False)]


def _word_gap(gaps: list[float]) -> float:
    """Returns the gap that parts letters from words on a page best."""
    near = np.array([gap for gap in gaps if 0 <= gap < 1.0])
    if len(near) < 8:
        return _WORD_GAP
    levels = np.linspace(*_WORD_GAPS, 23)
    # The widest empty stretch between the two groups, or the middle of the emptiest.
    counts = np.array([np.sum(np.abs(near - level) < 0.03) for level in levels])
    return float(np.mean(levels[counts == counts.min()]))


def _pieces(row: list[Box], size: float, word_gap: float) -> list[TextLine]:
    """Cuts a row at its gaps, into pieces at wide ones and words at others."""
    words: list[list[Box]] = [[row[0]]]
    pieces: list[list[list[Box]]] = [words]
    for box, gap in zip(row[1:], _gaps(row), strict=True):
        if gap > _COLUMN_GAP * size:
            words = [[box]]
            pieces.append(words)
        elif gap > word_gap * size:
            words.append([box])
        else:
            words[-1].append(box)
    return [TextLine(_around([box for word in piece for box in word]), tuple(map(_around, piece))) for piece in pieces]


def _around(boxes: list[Box]) -> Box:
    left, top, right, bottom = np.array(boxes).T
    return int(left.min()), int(top.min()), int(right.max()), int(bottom.max())
