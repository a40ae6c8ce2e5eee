"""Pictures of things for `demo-image`: one of ten, somewhere in a picture, of any colours.

Each is made of polygons in a square from -1 to 1, y downwards. One combination in five of thing, colour and
size is held out of training; places, turns, shades, specks and noise are new in every picture.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from samples.inputs.scenes import COLOURS, Point
from samples.inputs.split import is_held_out

SIDE = 96
FINE = 3
SMALLEST, LARGEST = 18.0, 42.0
SIZES = 4
Colour = tuple[int, int, int]
Polygon = Sequence[Point]
Part = tuple[int, Polygon]
"""Which of the thing's three colours (its own, another, a dark one), and the outline that it fills."""


@dataclass(frozen=True)
class Thing:
    """A picture with a thing in it, and the thing's name."""

    image: Image.Image
    label: str


def draw_thing(rng: random.Random, *, held_out: bool, label: str | None = None) -> Thing:
    """Draw a picture with a thing from one side of the split."""
    label = label or rng.choice(LABELS)
    while True:
        colour, size = rng.choice(list(COLOURS)), rng.random()
        if is_held_out(f"{label} {colour} {int(size * SIZES)}") == held_out:
            break
    return Thing(_picture(rng, label, colour, SMALLEST + size * (LARGEST - SMALLEST)), label)


def nothing(rng: random.Random) -> Image.Image:
    """Draw a picture with no thing in it: ground, specks and noise alone."""
    return _picture(rng, None, "black", SMALLEST)


def _picture(rng: random.Random, label: str | None, colour: str, radius: float) -> Image.Image:
    """Draw three times as large, and reduce; add noise."""
    ground = _ground(rng, COLOURS[colour])
    page = Image.new("RGB", (SIDE * FINE, SIDE * FINE), ground)
    pencil = ImageDraw.Draw(page)
    for _ in range(rng.randint(0, 6)):
        _speck(pencil, rng)
    if label is not None:
        other = rng.choice([name for name in COLOURS if name != colour])
        shades = [_shade(rng, COLOURS[colour]), _shade(rng, COLOURS[other]), _shade(rng, (50, 45, 45))]
        place = _placing(rng, radius)
        for number, polygon in DRAWINGS[label](rng):
            pencil.polygon([place(point) for point in polygon], shades[number])
    picture = np.asarray(page.reduce(FINE), dtype=np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, 12), picture.shape)
    return Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))


def _ground(rng: random.Random, colour: Colour) -> Colour:
    """Draw a ground that the thing stands out from."""
    while True:
        ground = (rng.randint(30, 250), rng.randint(30, 250), rng.randint(30, 250))
        if math.dist(ground, colour) > 110:
            return ground


def _shade(rng: random.Random, colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, level + rng.randint(-20, 20))) for level in colour)
    return red, green, blue


def _speck(pencil: ImageDraw.ImageDraw, rng: random.Random) -> None:
    """Draw a small spot or stroke that means nothing."""
    x, y = rng.uniform(0, SIDE * FINE), rng.uniform(0, SIDE * FINE)
    colour = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
    if rng.random() < 0.5:
        radius = rng.uniform(3, 8)
        pencil.ellipse([x - radius, y - radius, x + radius, y + radius], colour)
    else:
        pencil.line([x, y, x + rng.uniform(-45, 45), y + rng.uniform(-45, 45)], colour, width=rng.randint(2, 5))


def _placing(rng: random.Random, radius: float) -> Callable[[Point], Point]:
    """Draw where a thing stands, how it leans and which way it looks; all of it is inside."""
    x, y = rng.uniform(radius, SIDE - radius), rng.uniform(radius, SIDE - radius)
    turn, flip = rng.uniform(-0.35, 0.35), rng.choice((-1, 1))
    cosine, sine = math.cos(turn), math.sin(turn)
    stretch = rng.uniform(0.8, 1.0)

    def place(point: Point) -> Point:
        across, down = flip * point[0] * stretch * radius * 0.72, point[1] * radius * 0.72
        return FINE * (x + across * cosine - down * sine), FINE * (y + across * sine + down * cosine)

    return place


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _oval(x: float, y: float, width: float, height: float, start: float = 0.0, end: float = 1.0) -> Polygon:
    """Outline an oval, or the part of it between two shares of the whole turn, which begins on the right."""
    steps = [start + (end - start) * step / 24 for step in range(25)]
    turns = [2 * math.pi * step for step in steps]
    return [(x + width * math.cos(turn), y + height * math.sin(turn)) for turn in turns]


def _ring(x: float, y: float, radius: float, thick: float) -> Polygon:
    outer, inner = _oval(x, y, radius, radius), _oval(x, y, radius - thick, radius - thick)
    return [*outer, *reversed(inner)]


def _boat(rng: random.Random) -> list[Part]:
    hull = [(-1.0, 0.4), (1.0, 0.4), (0.6, 0.95), (-0.6, 0.95)]
    top = rng.uniform(-1.0, -0.8)
    sails = [(1, [(0.08, top), (0.08, 0.25), (0.85, 0.25)])]
    if rng.random() < 0.5:
        sails.append((1, [(-0.12, top + 0.3), (-0.12, 0.25), (-0.7, 0.25)]))
    return [(0, hull), (2, _box(-0.06, top, 0.06, 0.4)), *sails]


def _car(rng: random.Random) -> list[Part]:
    roof = rng.uniform(-0.55, -0.35)
    cabin = [(-0.6, 0.0), (-0.4, roof), (0.3, roof), (0.6, 0.0)]
    window = [(-0.42, -0.03), (-0.28, roof + 0.12), (0.2, roof + 0.12), (0.4, -0.03)]
    wheels = [(2, _oval(side * 0.55, 0.45, 0.24, 0.24)) for side in (-1, 1)]
    return [(0, _box(-1.0, -0.03, 1.0, 0.42)), (0, cabin), (1, window), *wheels]


def _cup(rng: random.Random) -> list[Part]:
    foot = rng.uniform(0.35, 0.6)
    body = [(-0.75, -0.6), (0.45, -0.6), (foot - 0.15, 0.75), (-foot - 0.15, 0.75)]
    return [(0, _ring(0.5, -0.05, 0.45, 0.17)), (0, body), (1, _oval(-0.15, -0.6, 0.6, 0.13))]


def _fish(rng: random.Random) -> list[Part]:
    height = rng.uniform(0.35, 0.55)
    tail = [(0.5, 0.0), (1.0, -0.5), (1.0, 0.5)]
    fin = [(-0.2, -height * 0.8), (0.3, -height - 0.25), (0.35, -height * 0.5)]
    return [(1, tail), (1, fin), (0, _oval(-0.2, 0.0, 0.8, height)), (2, _oval(-0.65, -0.1, 0.09, 0.09))]


def _flower(rng: random.Random) -> list[Part]:
    count, turn = rng.randint(5, 7), rng.uniform(0, 2 * math.pi)
    turns = [turn + 2 * math.pi * number / count for number in range(count)]
    petals = [(0, _oval(0.4 * math.cos(t), -0.4 + 0.4 * math.sin(t), 0.25, 0.25)) for t in turns]
    leaf = [(0.0, 0.75), (0.55, 0.3), (0.4, 0.75)]
    return [(2, _box(-0.06, -0.2, 0.06, 1.0)), (2, leaf), *petals, (1, _oval(0.0, -0.4, 0.24, 0.24))]


def _house(rng: random.Random) -> list[Part]:
    peak, door = rng.uniform(-1.0, -0.8), rng.uniform(-0.4, 0.1)
    roof = [(-1.0, -0.1), (0.0, peak), (1.0, -0.1)]
    window = _box(0.3, 0.15, 0.6, 0.45)
    return [(0, _box(-0.8, -0.1, 0.8, 0.9)), (1, roof), (2, _box(door - 0.2, 0.3, door + 0.2, 0.9)), (2, window)]


def _key(rng: random.Random) -> list[Part]:
    teeth = [(0, _box(x, 0.05, x + 0.13, rng.uniform(0.3, 0.45))) for x in (0.35, 0.6, 0.85)]
    return [(0, _ring(-0.6, 0.0, 0.4, 0.18)), (0, _box(-0.25, -0.1, 0.98, 0.1)), *teeth]


def _mushroom(rng: random.Random) -> list[Part]:
    width = rng.uniform(0.15, 0.28)
    dots = [(1, _oval(x, y, 0.12, 0.12)) for x, y in ((-0.5, -0.2), (0.05, -0.5), (0.5, -0.15))]
    return [(1, _box(-width, 0.0, width, 0.9)), (0, _oval(0.0, 0.1, 0.95, 0.9, 0.5, 1.0)), *dots]


def _tree(rng: random.Random) -> list[Part]:
    wide = rng.uniform(0.6, 0.85)
    crown = [(0, [(-wide * s, y), (0.0, y - 0.75), (wide * s, y)]) for s, y in ((1.0, 0.55), (0.8, 0.15), (0.6, -0.25))]
    return [(1, _box(-0.13, 0.5, 0.13, 1.0)), *crown]


def _umbrella(rng: random.Random) -> list[Part]:
    edge = rng.uniform(-0.05, 0.1)
    arches = [_oval(x, edge, 0.32, 0.16, 0.5, 1.0) for x in (-0.64, 0.0, 0.64)]
    roof = [*_oval(0.0, edge, 0.96, 0.95, 0.5, 1.0), *(point for arch in reversed(arches) for point in reversed(arch))]
    hook = [*_oval(0.2, 0.75, 0.25, 0.25, 0.0, 0.5), *reversed(_oval(0.2, 0.75, 0.13, 0.13, 0.0, 0.5))]
    return [(2, _box(-0.06, edge, 0.06, 0.78)), (2, hook), (0, roof)]


DRAWINGS: dict[str, Callable[[random.Random], list[Part]]] = {
    "boat": _boat,
    "car": _car,
    "cup": _cup,
    "fish": _fish,
    "flower": _flower,
    "house": _house,
    "key": _key,
    "mushroom": _mushroom,
    "tree": _tree,
    "umbrella": _umbrella,
}
LABELS = tuple(DRAWINGS)
