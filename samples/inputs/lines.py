"""Single printed lines for `demo-ocr`: what they say, and their pictures.

Training and exam share neither a text (`samples.inputs.split`) nor a family of fonts. The fonts are
files that come with matplotlib, and Pillow's own.
"""

import random
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from samples.inputs.split import is_held_out

CHARACTERS = digits + ascii_uppercase + ascii_lowercase + " .,:-/#$%()&@"
LONGEST = 14
# What the model is meant for; training goes further, so that this length is nothing special to it.
MEANT = 10
# A line of one of these alone cannot be told from its other case, or from another character.
ALIKE = frozenset("cCoOsSvVwWxXzZuUpPkK0Il1i")

PILLOW = "Pillow's default"
TRAINING_FONTS = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
    *(f"cm{style}10.ttf" for style in ("r", "b", "tt")),
)
EXAM_FONTS = (PILLOW, "cmss10.ttf")

VOWELS = "aaeeeiioouy"
ONSETS, ENDINGS, MONTHS = (
    words.split()
    for words in (
        "b c d f g h j k l m n p qu r s t v w x y z br ch cl dr fl gr pl pr sh sl st th tr",
        "n r s t l m d k p x w g b f ck nd rt st ng ll ss",
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
    )
)
CODAS = ("", "", "", *ENDINGS)


@dataclass(frozen=True)
class Line:
    """A picture of a line, and what it says."""

    image: Image.Image
    text: str
    font: str


def draw_line(rng: random.Random, *, held_out: bool) -> Line:
    """Draw a random text in a random font and manner, of training or of the exam."""
    text = draw_text(rng, held_out=held_out)
    font = rng.choice(EXAM_FONTS if held_out else TRAINING_FONTS)
    return Line(render(text, font, rng, wear=0.2 if held_out else 1.0), text, font)


def draw_text(rng: random.Random, *, held_out: bool) -> str:
    """Draw a text from one side of the split: of 1 to 14 characters to learn, of 1 to 10 for the exam."""
    longest = MEANT if held_out else LONGEST
    while True:
        (kind,) = rng.choices((_words, _number, _code, _date, _labelled, _short), (8, 5, 5, 2, 3, 1))
        text = kind(rng)
        if len(text) <= longest and is_held_out(text) == held_out and not ALIKE.issuperset(text):
            return text


def _word(rng: random.Random) -> str:
    syllables = rng.choices((1, 2, 3), (3, 5, 2))[0]
    word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)
    if rng.random() < 0.1:
        word = rng.choice("aeiou") + word
    return rng.choices((word, word.capitalize(), word.upper()), (3, 4, 3))[0]


def _words(rng: random.Random) -> str:
    count = rng.choices((1, 2, 3), (6, 3, 1))[0]
    return " ".join(_word(rng) for _ in range(count)) + rng.choices(("", ".", ",", ":"), (8, 1, 1, 1))[0]


def _digits(rng: random.Random, least: int, most: int) -> str:
    return "".join(rng.choices(digits, k=rng.randint(least, most)))


def _number(rng: random.Random) -> str:
    plain = _digits(rng, 1, 9)
    amount = f"{rng.randrange(10 ** rng.randint(1, 6)):,}.{_digits(rng, 2, 2)}"
    share = f"{rng.randrange(100)}%"
    return rng.choices((plain, amount, f"${amount}", share, f"({plain})", f"#{plain}"), (6, 4, 3, 1, 1, 1))[0]


def _code(rng: random.Random) -> str:
    # Serial numbers leave out I and O, which some fonts draw like 1 and 0.
    letters = [letter for letter in ascii_uppercase if letter not in "IO"]
    groups = ["".join(rng.choices(letters, k=rng.randint(1, 4))), _digits(rng, 1, 6)]
    mixed = "".join(rng.choices([*letters, *"23456789"], k=rng.randint(2, 8)))
    groups = rng.choices(([*groups], [*groups, groups[0]], [mixed], [mixed, groups[1]]), (5, 1, 2, 1))[0]
    return rng.choices("-/. ", (6, 2, 1, 1))[0].join(groups)


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(1950, 2049), rng.randint(1, 12), rng.randint(1, 28)
    forms = (
        f"{year}-{month:02}-{day:02}",
        f"{day:02}/{month:02}/{year}",
        f"{day}.{month}.{year}",
        f"{day} {MONTHS[month - 1]} {year}",
        f"{MONTHS[month - 1]} {day}, {year}",
        f"{rng.randrange(24):02}:{rng.randrange(60):02}",
    )
    return rng.choice(forms)


def _labelled(rng: random.Random) -> str:
    value = rng.choice((_number, _code, _word))(rng)
    return rng.choice((f"{_word(rng)}: {value}", f"{_word(rng)} {value}", f"{_word(rng)} & {_word(rng)}", f"@{value}"))


def _short(rng: random.Random) -> str:
    return "".join(rng.choices(digits + ascii_uppercase, k=rng.randint(1, 2)))


def render(text: str, font: str, rng: random.Random, *, wear: float = 1.0) -> Image.Image:
    """Draw a text as a picture in RGB; size, margins, ink and paper vary, and by `wear` its shape and sharpness."""
    face = load_font(font, rng.randint(18, 44))
    gap = face.size * rng.uniform(-0.02, 0.15) if rng.random() < 0.3 * wear else 0.0
    mask = _set(text, face, gap, rng)
    return _develop(_distort(mask, rng, wear, bold="Bol" in font), rng, wear)


def _set(text: str, face: ImageFont.FreeTypeFont, gap: float, rng: random.Random) -> Image.Image:
    """Set a text in white on black, with margins, and a gap in pixels between its letters where there is one."""
    left, top, right, bottom = face.getbbox(text)
    if rng.random() < 0.8:
        top, bottom = min(top, 0), max(bottom, sum(face.getmetrics()))
    west, north, east, south = (face.size * rng.uniform(0.05, 0.35) for _ in range(4))
    width = right - left + west + east + max(0.0, gap) * len(text)
    mask = Image.new("L", (round(width), round(bottom - top + north + south)), 0)
    pencil, at = ImageDraw.Draw(mask), west - left
    for piece in text if gap else [text]:
        pencil.text((at, north - top), piece, fill=255, font=face)
        at += face.getlength(piece) + gap
    return mask


@cache
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font by the name of its file; size in pixels."""
    if name == PILLOW:
        face = ImageFont.load_default(size)
        assert isinstance(face, ImageFont.FreeTypeFont)
        return face
    matplotlib = find_spec("matplotlib")
    if matplotlib is None or not matplotlib.submodule_search_locations:
        raise ModuleNotFoundError("The sample lines are drawn with matplotlib's fonts: install matplotlib.")
    folder = Path(matplotlib.submodule_search_locations[0], "mpl-data", "fonts", "ttf")
    return ImageFont.truetype(str(folder / name), size)


def _distort(mask: Image.Image, rng: random.Random, wear: float, *, bold: bool) -> Image.Image:
    """Bend a mask into letters of another weight, width, height and slant, as other fonts have them."""
    if mask.height > 40 and rng.random() < 0.25 * wear:
        # Thin letters would fall apart if they got any thinner.
        mask = mask.filter(ImageFilter.MinFilter(3) if bold else ImageFilter.MaxFilter(3))
    width = max(4, round(mask.width * np.exp(wear * rng.uniform(-0.3, 0.3))))
    stretched = mask.resize((width, mask.height), Image.Resampling.BILINEAR)
    slant, turn = wear * rng.gauss(0, 0.1), wear * rng.gauss(0, 0.007)
    matrix = (1, slant, -slant * mask.height / 2, turn, 1, -turn * width / 2)
    turned = stretched.transform(stretched.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    rows, columns = (_bend(length, wear * rng.uniform(-0.07, 0.07)) for length in (mask.height, width))
    return Image.fromarray(np.asarray(turned)[rows][:, columns])


def _bend(length: int, strength: float) -> NDArray[np.intp]:
    """Make a list of places that runs from 0 to length - 1, now faster, now slower."""
    share = np.linspace(0, 1, length)
    return np.round((length - 1) * (share + strength * np.sin(2 * np.pi * share))).astype(np.intp)


def _develop(mask: Image.Image, rng: random.Random, wear: float = 1.0) -> Image.Image:
    """Put ink on paper where the mask is set, blur it and add noise."""
    if rng.random() < 0.3 * wear:
        mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.03 * mask.height)))
    paper, ink = np.array(_colours(rng), dtype=np.float32)
    covered = np.asarray(mask, dtype=np.float32)[..., None] / 255
    picture = paper + covered * (ink - paper)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, wear * rng.uniform(0, 10), picture.shape[:2])
    return Image.fromarray(np.clip(picture + noise[..., None], 0, 255).astype(np.uint8))


def _colours(rng: random.Random) -> tuple[list[int], list[int]]:
    """Draw paper and ink that differ well; one time in eight the ink is the lighter of the two."""
    light = [rng.randint(185, 255) for _ in range(3)]
    dark = [rng.randint(0, 95) for _ in range(3)]
    if rng.random() < 0.5:
        light, dark = [255] * 3, [rng.choice((0, 20, 60))] * 3
    return (dark, light) if rng.random() < 0.125 else (light, dark)


def blank_line(rng: random.Random) -> Image.Image:
    """Draw paper with nothing on it."""
    size = rng.randint(60, 400), rng.randint(24, 60)
    return _develop(Image.new("L", size, 0), rng)
