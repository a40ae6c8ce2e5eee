"""Short videos of one moving shape for `demo-video`, and questions about them.

A shape on a plain ground moves left, right, up or down, grows, shrinks, blinks or stays. One
combination of motion, shape and colour in five is held out of training; paths and pace are new each time.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from samples.inputs.scenes import COLOURS, FINE, PENCILS, SHAPES, Exchange

SIDE = 96
MOTIONS = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "grow": "grows",
    "shrink": "shrinks",
    "blink": "blinks",
    "still": "stays still",
}
TOWARDS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Pose:
    """Where a shape stands at one moment, how large it is and whether it shows; in shares of the picture's side."""

    at: tuple[float, float]
    radius: float
    shown: bool = True


@dataclass(frozen=True)
class Clip:
    """Frames in RGB, (height, width, 3) each, the poses in them, frames per second, and what they show."""

    frames: tuple[Frame, ...]
    poses: tuple[Pose, ...]
    fps: int
    motion: str
    shape: str
    colour: str


def draw_clip(rng: random.Random, *, held_out: bool, sampled: int | None = None, motion: str | None = None) -> Clip:
    """Draw a clip of 1 to 3 seconds from one side of the split, or only so many frames of it, evenly spaced."""
    chosen = _choose(rng, held_out, motion)
    fps = rng.choice((8, 10, 12, 15, 24))
    count = round(fps * rng.uniform(1, 3))
    places = sample(count, sampled) if sampled else range(count)
    poses = _poses(chosen[0], [place / (count - 1) for place in places], rng)
    return Clip(_film(poses, chosen[1], chosen[2], rng), tuple(poses), fps, *chosen)


def draw_glimpse(rng: random.Random, *, held_out: bool) -> Clip:
    """Draw one frame, from any moment of a clip from one side of the split."""
    chosen = _choose(rng, held_out)
    poses = _poses(chosen[0], [rng.random()], rng)
    return Clip(_film(poses, chosen[1], chosen[2], rng), tuple(poses), 1, *chosen)


def _choose(rng: random.Random, held_out: bool, motion: str | None = None) -> tuple[str, str, str]:
    """Choose motion, shape and colour from one side of the split."""
    while True:
        chosen = motion or rng.choice(list(MOTIONS)), rng.choice(SHAPES), rng.choice(list(COLOURS))
        if is_exam(*chosen) == held_out:
            return chosen


def is_exam(motion: str, shape: str, colour: str) -> bool:
    """Tell whether training never shows such a clip; the rule holds out each motion, shape and colour as often."""
    return (list(MOTIONS).index(motion) + 2 * SHAPES.index(shape) + list(COLOURS).index(colour)) % 5 == 0


def still_clip(rng: random.Random, sampled: int) -> tuple[Frame, ...]:
    """Film a ground on which nothing is."""
    return _film([Pose((0.5, 0.5), 0.1, shown=False)] * sampled, SHAPES[0], "red", rng)


def write_video(clip: Clip, path: Path) -> None:
    """Write a clip as an MP4: H.264, which every player shows, or MPEG-4 where PyAV is built without it."""
    with av.open(str(path), "w", format="mp4") as container:
        if "libx264" in av.codecs_available:
            stream = container.add_stream("h264", rate=clip.fps, options={"crf": "18"})
        else:
            stream = container.add_stream("mpeg4", rate=clip.fps)
            stream.bit_rate = 800_000
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def sample(count: int, wanted: int) -> list[int]:
    """Choose frames from the first to the last, evenly spaced."""
    return [round(place) for place in np.linspace(0, count - 1, wanted)]


def _poses(motion: str, moments: Sequence[float], rng: random.Random) -> list[Pose]:
    """Pose a shape at each moment, from 0 to 1, of a motion."""
    small, large = rng.uniform(0.1, 0.14), rng.uniform(0.25, 0.34)
    radius = rng.uniform(0.14, 0.23)
    if motion in TOWARDS:
        return _path(TOWARDS[motion], radius, moments, rng)
    widest = large if motion in ("grow", "shrink") else radius
    at = (rng.uniform(widest, 1 - widest), rng.uniform(widest, 1 - widest))
    if motion == "grow":
        return [Pose(at, small + (large - small) * moment) for moment in moments]
    if motion == "shrink":
        return [Pose(at, large + (small - large) * moment) for moment in moments]
    if motion == "blink":
        times, start = rng.uniform(1.5, 3.0), rng.random()
        return [Pose(at, radius, shown=(start + times * moment) % 1 < 0.5) for moment in moments]
    return [Pose(at, radius)] * len(moments)


def _path(towards: tuple[int, int], radius: float, moments: Sequence[float], rng: random.Random) -> list[Pose]:
    """Lead a shape along one axis, over at least half of the room that it has, drifting a little along the other."""
    room = 1 - 2 * radius
    length = rng.uniform(0.5, 0.95) * room
    start = radius + rng.uniform(0, room - length)
    across, drift = rng.uniform(radius, 1 - radius), rng.uniform(-0.05, 0.05)
    poses = []
    for moment in moments:
        gone = moment if sum(towards) > 0 else 1 - moment
        along, aside = start + length * gone, across + drift * moment
        poses.append(Pose((along, aside) if towards[0] else (aside, along), radius))
    return poses


def _film(poses: Sequence[Pose], shape: str, colour: str, rng: random.Random) -> tuple[Frame, ...]:
    """Draw a shape in each of its poses, on one ground, with noise that flickers."""
    grey = rng.uniform(95, 190)
    ground = tuple(round(grey + rng.uniform(-14, 14)) for _ in range(3))
    shade = tuple(min(255, max(0, round(level + rng.uniform(-14, 14)))) for level in COLOURS[colour])
    turn, grain = rng.uniform(0, 2 * math.pi), rng.uniform(0, 5)
    noise = np.random.default_rng(rng.getrandbits(32))
    frames = []
    for pose in poses:
        # The pencils of scenes draw FINE times as large as they are told.
        page = Image.new("RGB", (SIDE * 2, SIDE * 2), ground)
        if pose.shown:
            scale = SIDE * 2 / FINE
            at = (pose.at[0] * scale, pose.at[1] * scale)
            PENCILS[shape](ImageDraw.Draw(page), at, pose.radius * scale, turn, shade, ground)
        picture = np.asarray(page.reduce(2), dtype=np.float32)
        grained = picture + grain * noise.standard_normal(picture.shape[:2], dtype=np.float32)[..., None]
        frames.append(np.clip(grained, 0, 255).astype(np.uint8))
    return tuple(frames)


ASK_MOTION = (
    "What happens?",
    "What happens in the video?",
    "What does it do?",
    "What does the shape do?",
    "How does it move?",
    "Which way does it move?",
)
ASK_SHAPE = ("What shape is it?", "Which shape do you see?", "What moves?")
ASK_COLOUR = ("What colour is it?", "What color is it?", "Which colour do you see?")
ASK_ALL = ("Describe the video.", "Describe this video.", "What do you see?", "What is in the video?")


def exchanges(clip: Clip, rng: random.Random) -> dict[str, Exchange]:
    """Ask all that can be asked of a clip, each in one of several ways."""
    article = "an" if clip.colour[0] in "aeiou" else "a"
    return {
        "motion": Exchange(rng.choice(ASK_MOTION), MOTIONS[clip.motion]),
        "shape": Exchange(rng.choice(ASK_SHAPE), clip.shape),
        "colour": Exchange(rng.choice(ASK_COLOUR), clip.colour),
        "all": Exchange(rng.choice(ASK_ALL), f"{article} {clip.colour} {clip.shape} {MOTIONS[clip.motion]}"),
    }
