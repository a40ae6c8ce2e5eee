"""Video to a few frames. Runs inside decoder processes, on strangers' bytes.

Packets are counted first, which costs next to nothing. Then only those groups of pictures are decoded that hold a
frame that is wanted: nothing depends on a container's index, and a long video costs little more than a short one.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from src.media.containers import Damage, frames_of, open_container, packets_of, track
from src.media.content import Pieces
from src.media.job import Answer, Job
from src.media.sampling import DEFAULT_FRAMES, by_rate, evenly
from src.media.timeline import Timeline, holds_frame, read_timeline
from src.media.wishes import VideoWishes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# AVI stores no times: the library makes them up by the order of packets, which is not that of frames.
_WITHOUT_TIMES = ("video/avi",)


class _FalseStartError(Exception):
    """A packet marked as one to begin with is none."""


def decode(job: Job) -> Answer:
    """Returns the frames asked for of the first picture track; see `DecodedVideo`."""
    with open_container(job) as container:
        stream = track(job, container, "video")
        job.check_pixels(stream.codec_context.width, stream.codec_context.height)
        timeline = read_timeline(job, container, stream)
    wanted = _chosen(job, timeline)
    pictures = _pictures(job, timeline, wanted)
    facts = {
        "timestamps": [timeline.times[place] for place in wanted],
        "indices": wanted,
        "total_frames": len(timeline.order),
        "fps": timeline.fps,
        "duration": timeline.duration,
        "warnings": pictures.warnings,
    }
    return [pictures.all()], facts


def _chosen(job: Job, timeline: Timeline) -> list[int]:
    wishes, total, most = job.wishes, len(timeline.order), job.settings.max_video_frames
    assert isinstance(wishes, VideoWishes)
    if wishes.fps is None:
        return evenly(total, min(wishes.num_frames or DEFAULT_FRAMES, most))
    places = by_rate(timeline.times, wishes.fps)
    if wishes.num_frames is not None:
        return [places[place] for place in evenly(len(places), wishes.num_frames)]
    if len(places) > most:
        problem = f"gives {len(places)} frames at {wishes.fps:g} per second: ask for a lower `fps`, or for `num_frames`"
        raise job.too_large(problem, "max_video_frames", most)
    return places


def _pictures(job: Job, timeline: Timeline, wanted: list[int]) -> "_Pictures":
    if job.type not in _WITHOUT_TIMES:
        try:
            return _by_groups(job, timeline, wanted)
        except _FalseStartError:
            pass
    return _from_the_start(job, wanted)


def _from_the_start(job: Job, wanted: list[int]) -> "_Pictures":
    """Decodes everything up to the last wanted frame, and counts."""
    pictures, left = _Pictures(job, len(wanted)), deque(wanted)
    with open_container(job) as container:
        for place, frame in enumerate(frames_of(job, container, track(job, container, "video"))):
            pictures.see(frame)
            if place == left[0]:
                left.popleft()
                pictures.take()
            if not left:
                break
    return pictures


def _by_groups(job: Job, timeline: Timeline, wanted: list[int]) -> "_Pictures":
    """Decodes the groups of pictures that hold wanted frames; raises `_FalseStartError` where one begins wrongly."""
    pictures, damage = _Pictures(job, len(wanted)), Damage(job)
    groups = _groups(timeline, wanted)
    with open_container(job) as container:
        stream = track(job, container, "video")
        group: _Group | None = None
        for place, packet in _numbered(packets_of(job, container, stream)):
            if groups and place == groups[0].start:
                group = _begin(group, groups.popleft(), stream)
            if group is not None:
                for frame in damage.watch(packet.decode):
                    group.take(frame, pictures)
                group = group if group.times else None
            if group is None and not groups:
                break
    damage.check()
    return pictures


@dataclass
class _Group:
    """Wanted frames that are decoded from one packet on; `begins` is that packet's time."""

    start: int
    begins: int
    times: deque[int]
    is_fresh: bool = True

    def take(self, frame: Any, pictures: "_Pictures") -> None:
        """Looks at a frame as it comes out of the decoder."""
        if frame.pts is None or (self.is_fresh and frame.pts >= self.begins and not frame.key_frame):
            raise _FalseStartError
        if frame.pts < self.begins and self.is_fresh:
            return  # it leans on what was left out
        self.is_fresh = False
        pictures.see(frame)
        while self.times and frame.pts >= self.times[0]:
            self.times.popleft()
            pictures.take()


def _groups(timeline: Timeline, wanted: list[int]) -> deque[_Group]:
    groups: deque[_Group] = deque()
    for place in wanted:
        entry = timeline.order[place]
        start = timeline.key_before(entry)
        if not groups or groups[-1].start != start:
            groups.append(_Group(start, timeline.entries[start].time, deque()))
        groups[-1].times.append(timeline.entries[entry].time)
    return groups


def _begin(current: _Group | None, following: _Group, stream: Any) -> _Group:
    if current is None:
        stream.codec_context.flush_buffers()
        return following
    # Still decoding: what is left of the current group comes first.
    current.times.extend(following.times)
    return current


def _numbered(packets: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    """Yields packets with their places in the timeline; those without a frame have none."""
    count = itertools.count()
    for packet in packets:
        yield (next(count) if holds_frame(packet) else -1), packet


class _Pictures:
    """Frames as arrays: upright, all of one size, together within `media.max_pixels`."""

    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        self._count = count
        self._seen: Any = None
        self._size: tuple[int, int] | None = None
        self._arrays: list[NDArray[np.uint8]] = []
        self.warnings: list[str] = []

    def see(self, frame: Any) -> None:
        """Remembers a frame, in case it is the one to take."""
        self._job.check_pixels(frame.width, frame.height)
        self._seen = frame

    def take(self) -> None:
        """Takes the frame seen last."""
        frame = self._seen
        if self._size is None:
            self._size = self._fitting(frame.width, frame.height)
        width, height = self._size
        if (width, height) == (frame.width, frame.height):
            array = frame.to_ndarray(format="rgb24")
        else:
            array = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
        turns = round(frame.rotation / 90) % 4
        self._arrays.append(np.ascontiguousarray(np.rot90(array, turns)) if turns else array)

    def all(self) -> Pieces:
        """Returns them; where the last ones could not be decoded, the one before them stands in."""
        if self._seen is None:
            raise self._job.invalid("holds no frame that can be decoded")
        if len(self._arrays) < self._count:
            missing = self._count - len(self._arrays)
            self.warnings.append(
                f"the last {missing} of {self._count} frames could not be decoded: the last good one stands in"
            )
            self.take()
            self._arrays += [self._arrays[-1]] * (missing - 1)
        shape = self._arrays[0].shape
        if any(array.shape != shape for array in self._arrays):
            raise self._job.invalid("turns its pictures midway, which is not understood here")
        return Pieces(self._arrays, (len(self._arrays), *shape))

    def _fitting(self, width: int, height: int) -> tuple[int, int]:
        bound, together = self._job.settings.max_pixels, self._count * width * height
        if together <= bound:
            return width, height
        scale = math.sqrt(bound / together)
        fitting = max(1, int(width * scale)), max(1, int(height * scale))
        self.warnings.append(
            f"{self._count} frames of {width} x {height} are scaled to {fitting[0]} x {fitting[1]}: together they may "
            f"hold {bound:,} pixels (media.max_pixels)"
        )
        return fitting
