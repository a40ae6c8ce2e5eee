"""Which frames of a video, or pages of a document, are taken."""

from bisect import bisect_right
from collections.abc import Sequence

DEFAULT_FRAMES = 8
_TOLERANCE = 1e-6


def evenly(total: int, count: int) -> list[int]:
    """Returns `count` places spread evenly over `total`, first and last among them; all where there are fewer."""
    if count >= total:
        return list(range(total))
    if count == 1:
        return [total // 2]
    return [place * (total - 1) // (count - 1) for place in range(count)]


def by_rate(times: Sequence[float], fps: float) -> list[int]:
    """Returns the places of the frames seen at 0, 1/fps, 2/fps … seconds; `times` ascend from 0.

    A frame is seen until the next one comes. A rate above the video's own takes each frame once.
    """
    moments = (number / fps for number in range(int(times[-1] * fps + _TOLERANCE) + 1))
    return list(dict.fromkeys(bisect_right(times, moment + _TOLERANCE) - 1 for moment in moments))
