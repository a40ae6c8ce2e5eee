"""Pages are cut into lines or words for models that read one line, and put together again in reading order."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from samples.inputs.lines import load_font
from src.inference.engines.transformers.page_cuts import Cut, cuts, put_together
from src.inference.engines.transformers.recognition import Reading


def page(*texts: tuple[int, int, str], size: tuple[int, int] = (600, 300)) -> np.ndarray:
    image = Image.new("RGB", size, "white")
    for left, top, text in texts:
        ImageDraw.Draw(image).text((left, top), text, fill="black", font=load_font("DejaVuSans.ttf", 24))
    return np.asarray(image)


TWO_LINES = page((40, 40, "first line"), (40, 140, "second"))
ONE_LINE = page((40, 40, "one line"), (400, 42, "far off"))
BLANK = page()


@pytest.mark.parametrize("how", ["auto", "none"])
@pytest.mark.parametrize("picture", [ONE_LINE, BLANK], ids=["one line", "blank"])
def test_a_picture_of_one_line_stays_whole(picture: np.ndarray, how: str) -> None:
    assert cuts(picture, how) is None


def test_a_page_is_cut_into_its_lines_unless_told_not_to() -> None:
    pieces = cuts(TWO_LINES, "auto")
    assert pieces is not None
    assert [piece.line for piece in pieces] == [0, 1]
    assert pieces[0].box[3] < pieces[1].box[1]
    assert cuts(TWO_LINES, "none") is None


def test_words_are_cut_as_high_as_their_line() -> None:
    pieces = cuts(TWO_LINES, "words")
    assert pieces is not None
    assert [piece.line for piece in pieces] == [0, 0, 1]
    assert pieces[0].picture.shape[0] == pieces[1].picture.shape[0]


def test_a_blank_page_has_no_words() -> None:
    assert cuts(BLANK, "words") == []
    assert put_together([], [], "words") == {"text": "", "lines": [], "words": []}


def reading(text: str) -> Reading:
    return Reading(text, [np.log(0.5)] * 2, 2, True)


def piece(*box: int) -> Cut:
    return Cut((box[0], box[1], box[2], box[3]), BLANK, 0)


def test_pieces_of_a_row_are_joined_by_spaces_and_rows_by_line_breaks() -> None:
    pieces = [piece(0, 0, 50, 20), piece(300, 2, 350, 21), piece(0, 60, 50, 80)]
    found = put_together(pieces, [reading(text) for text in ("Total", "5.00", "Thanks")], "lines")
    assert found["text"] == "Total 5.00\nThanks"
    assert found["lines"][1] == {"text": "5.00", "box": [300, 2, 350, 21], "score": pytest.approx(0.5)}


def test_words_come_with_the_lines_that_they_make() -> None:
    pieces = [piece(0, 0, 50, 20), piece(60, 0, 90, 20), piece(0, 60, 50, 80)]
    found = put_together(pieces, [reading(text) for text in ("Order", "4711", "Thanks")], "words")
    assert [line["text"] for line in found["lines"]] == ["Order 4711", "Thanks"]
    assert [word["text"] for word in found["words"]] == ["Order", "4711", "Thanks"]


def test_pieces_in_which_nothing_was_read_are_left_out() -> None:
    found = put_together([piece(0, 0, 9, 9), piece(0, 60, 9, 69)], [reading(" "), reading("x")], "lines")
    assert (found["text"], len(found["lines"])) == ("x", 1)
