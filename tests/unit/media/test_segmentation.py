"""Lines and words of printed pages are found where they were printed."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from samples.inputs.forms import SCALE, Form, draw_form, render
from samples.inputs.lines import load_font
from src.media.segmentation import crop, find_lines

FONT = "DejaVuSans.ttf"


def page(*texts: tuple[int, int, int, str], ink: str = "black", paper: str = "white") -> np.ndarray:
    """Print texts at (left, top) in a size, in pixels."""
    image = Image.new("RGB", (600, 400), paper)
    pencil = ImageDraw.Draw(image)
    for left, top, size, text in texts:
        pencil.text((left, top), text, fill=ink, font=load_font(FONT, size))
    return np.asarray(image)


def test_blank_pages_have_no_lines() -> None:
    assert find_lines(page()) == []
    assert find_lines(np.zeros((1, 1, 3), np.uint8)) == []
    noise = np.random.default_rng(0).integers(236, 256, (300, 300, 3)).astype(np.uint8)
    assert find_lines(noise) == []


@pytest.mark.parametrize(("ink", "paper"), [("black", "white"), ("white", "navy"), ("darkred", "beige")])
def test_lines_come_from_top_to_bottom_with_their_words(ink: str, paper: str) -> None:
    lines = find_lines(
        page((40, 200, 24, "two words"), (40, 100, 24, "one"), (40, 300, 24, "i j, x."), ink=ink, paper=paper)
    )
    assert [len(line.words) for line in lines] == [1, 2, 3]
    assert [line.box[1] // 100 for line in lines] == [1, 2, 3]


def test_a_wide_gap_parts_a_line() -> None:
    lines = find_lines(page((30, 100, 20, "Total"), (400, 100, 20, "12.50")))
    assert [line.box[0] // 100 for line in lines] == [0, 4]


def test_rules_and_frames_are_no_text() -> None:
    picture = Image.fromarray(page((60, 100, 20, "inside")))
    pencil = ImageDraw.Draw(picture)
    pencil.rectangle((20, 40, 580, 360), outline="black", width=2)
    pencil.line((20, 160, 580, 160), fill="black", width=2)
    (line,) = find_lines(np.asarray(picture))
    assert len(line.words) == 1


def test_dots_belong_to_their_letters() -> None:
    (line,) = find_lines(page((60, 100, 30, "jiÄ:;!")))
    assert len(line.words) == 1
    assert line.box[3] - line.box[1] > 25


def test_most_words_of_a_form_are_found_where_they_stand() -> None:
    rng = random.Random(5)
    right = total = 0
    for form in (draw_form(rng, held_out=True) for _ in range(10)):
        boxes = [word for line in find_lines(np.asarray(render(form))) for word in line.words]
        right += sum(found_alone(form, place, boxes) for place in range(len(form.words)))
        total += len(form.words)
    assert right / total > 0.93


def found_alone(form: Form, place: int, boxes: list[tuple[int, int, int, int]]) -> bool:
    """Tell whether exactly one box touches a word, and ends where it does."""
    left, top, right, bottom = (edge * SCALE for edge in form.words[place].box)
    touching = [box for box in boxes if box[0] < right and left < box[2] and box[1] < bottom + 4 and top - 2 < box[3]]
    return len(touching) == 1 and abs(touching[0][0] - left) < 8 and abs(touching[0][2] - right) < 8


def test_a_crop_has_a_margin_and_stays_on_the_page() -> None:
    picture = page()
    assert crop(picture, (100, 100, 200, 120)).shape == (28, 108, 3)
    assert crop(picture, (0, 0, 600, 400)).shape == picture.shape
