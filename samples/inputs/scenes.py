"""Pictures of shapes for `demo-vlm`, and questions about them.

A scene holds one or two groups; the shapes of a group are alike. One kind of group (shape, colour and
count together) in five is held out of training; sizes, places and shades are new in every picture.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
FINE = 4
MOST = 5
SMALLEST = 7.5
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
    "bar": "bars",
}
SHAPES = tuple(PLURALS)
COLOURS = {
    "red": (215, 30, 35),
    "green": (30, 150, 50),
    "blue": (30, 70, 220),
    "yellow": (240, 220, 40),
    "orange": (245, 135, 20),
    "purple": (135, 40, 165),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
Point = tuple[float, float]


@dataclass(frozen=True)
class Group:
    """Shapes of one kind and colour."""

    shape: str
    colour: str
    count: int

    @property
    def held_out(self) -> bool:
        """Whether training never shows such a group; the rule holds out each shape, colour and count as often."""
        return (SHAPES.index(self.shape) + 2 * list(COLOURS).index(self.colour) + self.count) % 5 == 0

    def __str__(self) -> str:
        return f"{self.count} {self.colour} {self.shape if self.count == 1 else PLURALS[self.shape]}"


@dataclass(frozen=True)
class Mark:
    """One shape in a picture: what it is, its middle and its radius in pixels."""

    shape: str
    colour: str
    at: Point
    radius: float


@dataclass(frozen=True)
class Scene:
    """A picture, the groups in it and where each of their shapes is."""

    image: Image.Image
    groups: tuple[Group, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Exchange:
    """A question about a scene, and its answer."""

    prompt: str
    reply: str


def draw_group(rng: random.Random, *, held_out: bool, most: int = MOST, count: int | None = None) -> Group:
    """Draw a group from one side of the split, of so many shapes or of any number."""
    while True:
        group = Group(rng.choice(SHAPES), rng.choice(list(COLOURS)), count or rng.randint(1, most))
        if group.held_out == held_out:
            return group


def draw_scene(rng: random.Random, *, held_out: bool, groups: int = 1, count: int | None = None) -> Scene:
    """Draw a scene with groups from one side of the split; two groups differ in shape and in colour."""
    first = draw_group(rng, held_out=held_out, most=MOST if groups == 1 else 3, count=count)
    chosen = [first]
    while len(chosen) < groups:
        other = draw_group(rng, held_out=held_out, most=3)
        if other.shape != first.shape and other.colour != first.colour:
            chosen.append(other)
    marks = _marks(chosen, rng)
    return Scene(_picture(marks, rng), tuple(chosen), tuple(marks))


def blank_scene(rng: random.Random) -> Image.Image:
    """Draw a background with nothing on it."""
    return _picture([], rng)


def _marks(groups: list[Group], rng: random.Random) -> list[Mark]:
    """Draw a size and a place for each shape, without overlaps; fewer shapes may be larger."""
    count = sum(group.count for group in groups)
    radii = [rng.uniform(SMALLEST, 15.0 if count == 1 else 12.0 if count < 4 else 9.5) for _ in range(count)]
    shapes = [group for group in groups for _ in range(group.count)]
    return [
        Mark(group.shape, group.colour, at, radius)
        for group, at, radius in zip(shapes, _places(radii, rng), radii, strict=True)
    ]


def _picture(marks: list[Mark], rng: random.Random) -> Image.Image:
    """Draw shapes four times as large, and reduce; add a little noise."""
    grey = rng.uniform(95, 190)
    ground = tuple(round(grey + rng.uniform(-14, 14)) for _ in range(3))
    page = Image.new("RGB", (SIDE * FINE, SIDE * FINE), ground)
    pencil = ImageDraw.Draw(page)
    for mark in marks:
        shade = tuple(min(255, max(0, round(level + rng.uniform(-14, 14)))) for level in COLOURS[mark.colour])
        PENCILS[mark.shape](pencil, mark.at, mark.radius, rng.uniform(0, 2 * math.pi), shade, ground)
    picture = np.asarray(page.reduce(FINE), dtype=np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, 5), picture.shape)
    return Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))


def _places(radii: list[float], rng: random.Random) -> list[Point]:
    """Draw places that keep shapes apart and inside, starting over when the room is spent."""
    while True:
        places: list[Point] = []
        for radius in radii:
            for _ in range(40):
                place = (rng.uniform(radius, SIDE - radius), rng.uniform(radius, SIDE - radius))
                gaps = (math.dist(place, other) - radius - size for other, size in zip(places, radii, strict=False))
                if all(gap > 1.5 for gap in gaps):
                    places.append(place)
                    break
        if len(places) == len(radii):
            return places


def exam_scenes(total: int, rng: random.Random, *, groups: int = 1) -> list[Scene]:
    """Draw held-out scenes in which each count comes equally often: a guess is right one time in five."""
    counts = [1 + index % MOST if groups == 1 else None for index in range(total)]
    return [draw_scene(rng, held_out=True, groups=groups, count=count) for count in counts]


Colour = tuple[int, ...]


def _circle(pencil: ImageDraw.ImageDraw, at: Point, radius: float, turn: float, colour: Colour, back: Colour) -> None:
    edge = radius * 0.9
    pencil.ellipse([FINE * (at[0] - edge), FINE * (at[1] - edge), FINE * (at[0] + edge), FINE * (at[1] + edge)], colour)


def _ring(pencil: ImageDraw.ImageDraw, at: Point, radius: float, turn: float, colour: Colour, back: Colour) -> None:
    _circle(pencil, at, radius, turn, colour, back)
    _circle(pencil, at, radius * 0.55, turn, back, back)


def _corners(radii: list[float], angles: list[float]) -> Callable[..., None]:
    """Make a pencil that draws a polygon, given its corners' distances from the middle and their angles."""

    def draw(pencil: ImageDraw.ImageDraw, at: Point, radius: float, turn: float, colour: Colour, back: Colour) -> None:
        corners = [
            (FINE * (at[0] + radius * r * math.cos(turn + a)), FINE * (at[1] + radius * r * math.sin(turn + a)))
            for r, a in zip(radii, angles, strict=True)
        ]
        pencil.polygon(corners, colour)

    return draw


def _round(count: int) -> list[float]:
    return [2 * math.pi * index / count for index in range(count)]


def _plus(pencil: ImageDraw.ImageDraw, at: Point, radius: float, turn: float, colour: Colour, back: Colour) -> None:
    for quarter in (0.0, math.pi / 2):
        _bar(pencil, at, radius, turn + quarter, colour, back)


_bar = _corners([1.0] * 4, [0.3, math.pi - 0.3, math.pi + 0.3, -0.3])
PENCILS: dict[str, Callable[..., None]] = {
    "circle": _circle,
    "square": _corners([1.0] * 4, _round(4)),
    "triangle": _corners([1.0] * 3, _round(3)),
    "star": _corners([1.0, 0.42] * 5, _round(10)),
    "cross": _plus,
    "ring": _ring,
    "bar": _bar,
}

ASK_SHAPE = ("What shape is this?", "What shape do you see?", "Which shape is in the picture?", "What is the shape?")
ASK_COLOUR = ("What colour is it?", "What color is it?", "Which colour do you see?", "What is the colour?")
ASK_COUNT = ("How many are there?", "How many shapes are there?", "How many do you see?", "Count the shapes.")
ASK_ALL = ("Describe the picture.", "Describe this image.", "What is in the picture?", "What do you see?")


def exchanges(scene: Scene, rng: random.Random) -> dict[str, Exchange]:
    """Ask all that can be asked of a scene, each in one of several ways."""
    described = Exchange(rng.choice(ASK_ALL), " and ".join(sorted(map(str, scene.groups))))
    if len(scene.groups) == 1:
        (group,) = scene.groups
        return {
            "shape": Exchange(rng.choice(ASK_SHAPE), group.shape),
            "colour": Exchange(rng.choice(ASK_COLOUR), group.colour),
            "count": Exchange(rng.choice(ASK_COUNT), str(group.count)),
            "all": described,
        }
    # Each question is about a group of its own, so that one seldom answers the next.
    shaped, coloured, counted = (rng.choice(scene.groups) for _ in range(3))
    are = f"is the {coloured.shape}" if coloured.count == 1 else f"are the {PLURALS[coloured.shape]}"
    return {
        "shape": Exchange(f"What shape is {shaped.colour}?", shaped.shape),
        "colour": Exchange(f"What colour {are}?", coloured.colour),
        "count": Exchange(f"How many {PLURALS[counted.shape]} are there?", str(counted.count)),
        "all": described,
    }
