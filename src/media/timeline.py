"""When each frame of a video is seen, counted from the packets that are really there: headers are not believed."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from src.media.containers import check_length, cut_off, header_seconds, packets_of
from src.media.job import Job

_HIGHEST_RATE = 1000
"""Frames per second beyond which packets are not counted further."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One packet that holds a frame: its time (in the stream's unit), and whether decoding can begin with it.

    `is_shown` is False for one that is decoded for the sake of others only: an edit list cuts it away.
    """

    time: int
    is_key: bool
    is_shown: bool = True


@dataclass(frozen=True)
class Timeline:
    """The packets of a stream, in the order in which they are stored."""

    entries: tuple[Entry, ...]
    unit: float
    rate: float

    @cached_property
    def order(self) -> list[int]:
        """The places of the packets whose frames are seen, in the order in which they are."""
        shown = (place for place, entry in enumerate(self.entries) if entry.is_shown)
        return sorted(shown, key=lambda place: self.entries[place].time)

    @cached_property
    def times(self) -> list[float]:
        """Seconds from the first frame, of each frame in the order in which it is seen."""
        first = self.entries[self.order[0]].time
        return [(self.entries[place].time - first) * self.unit for place in self.order]

    @property
    def fps(self) -> float:
        """Frames per second, on average; what the header tells where there is one frame only."""
        return (len(self.times) - 1) / self.times[-1] if self.times[-1] > 0 else self.rate

    @property
    def duration(self) -> float:
        """Seconds, the last frame's own among them."""
        return self.times[-1] + (1 / self.fps if self.fps > 0 else 0.0)

    def key_before(self, place: int) -> int:
        """Returns the packet with which decoding must begin so that the one at `place` comes out whole."""
        wanted = self.entries[place].time
        for before in range(place, -1, -1):
            if self.entries[before].is_key and self.entries[before].time <= wanted:
                return before
        return 0


def read_timeline(job: Job, container: Any, stream: Any) -> Timeline:
    """Reads every packet and decodes none; raises past `media.max_video_seconds`, and for a video that is cut off."""
    promised = header_seconds(job, container, stream)
    bound = job.settings.max_video_seconds
    check_length(job, promised, bound, "max_video_seconds")
    unit = float(stream.time_base or 0) or 1 / 1000
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    entries: list[Entry] = []
    first: int | None = None
    for packet in packets_of(job, container, stream):
        if not holds_frame(packet):
            continue
        time = _time(packet, len(entries), unit, rate)
        entries.append(Entry(time, packet.is_keyframe, not packet.is_discard))
        if entries[-1].is_shown:
            first = time if first is None else min(first, time)
            check_length(job, (time - first) * unit, bound, "max_video_seconds")
        if len(entries) > bound * _HIGHEST_RATE:
            raise job.too_large(f"holds more than {len(entries) - 1:,} frames", "max_video_seconds", bound)
    if first is None:
        raise job.invalid("holds no picture: not one frame")
    timeline = Timeline(tuple(entries), unit, rate)
    _check_whole(job, timeline, stream, promised)
    return timeline


def holds_frame(packet: Any) -> bool:
    """Whether a frame comes of a packet: of the empty one at the end there comes none."""
    return bool(packet.size > 0)


def _time(packet: Any, count: int, unit: float, rate: float) -> int:
    if packet.pts is not None:
        return int(packet.pts)
    if packet.dts is not None:
        return int(packet.dts)
    return round(count / (rate or 25.0) / unit)


def _check_whole(job: Job, timeline: Timeline, stream: Any, promised: float | None) -> None:
    found = len(timeline.entries)
    if cut_off(promised, timeline.duration) or found < stream.frames * 0.9:
        told = f"{stream.frames} frames" if stream.frames else f"{promised or 0:.1f} s"
        raise job.invalid(
            f"is cut off: its header tells of {told}, and {found} frames ({timeline.duration:.1f} s) are there"
        )
