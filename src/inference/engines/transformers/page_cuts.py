"""Pages for recognisers that read one line at a time: cut into lines or words, and what was read put together."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.inference.engines.transformers.recognition import Pixels, Reading
from src.inference.types import JsonObject
from src.media.segmentation import Box, TextLine, crop, find_lines


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a page: its box in pixels, its picture, and the number of the printed line that it is of."""

    box: Box
    picture: Pixels
    line: int


def cuts(page: Pixels, how: str) -> list[Cut] | None:
    """Returns a page's pieces: `lines`, `words`, `auto` (lines, None where the picture is one line), `none` (None)."""
    if how == "none":
        return None
    lines = find_lines(page)
    if how == "words":
        return [_word(page, line, word, number) for number, line in enumerate(lines) for word in line.words]
    if how == "auto" and _is_one_line(lines):
        return None
    return [Cut(line.box, crop(page, line.box), number) for number, line in enumerate(lines)]


def put_together(pieces: Sequence[Cut], readings: Sequence[Reading], how: str) -> JsonObject:
    """Returns `text`, the printed lines below each other, `lines` and, where those were cut, `words` with boxes."""
    found = [
        (piece, {"text": reading.text.strip(), "box": list(piece.box)} | _score(reading))
        for piece, reading in zip(pieces, readings, strict=True)
        if reading.text.strip()
    ]
    rows: list[list[tuple[Cut, JsonObject]]] = []
    for piece, entry in found:
        if rows and _beside(rows[-1][-1][0].box, piece.box):
            rows[-1].append((piece, entry))
        else:
            rows.append([(piece, entry)])
    text = "\n".join(" ".join(entry["text"] for _, entry in row) for row in rows)
    entries = [entry for _, entry in found]
    if how != "words":
        return {"text": text, "lines": entries}
    lines = [{"text": " ".join(entry["text"] for _, entry in row)} for row in rows]
    return {"text": text, "lines": lines, "words": entries}


def _word(page: Pixels, line: TextLine, word: Box, number: int) -> Cut:
    # As high as its line: that tells an apostrophe from a comma, and a capital from a small letter.
    whole = (word[0], line.box[1], word[2], line.box[3])
    return Cut(word, crop(page, whole), number)


def _is_one_line(lines: Sequence[TextLine]) -> bool:
    return all(_beside(lines[0].box, line.box) for line in lines)


def _beside(first: Box, second: Box) -> bool:
    """Whether two boxes stand on one row."""
    shared = min(first[3], second[3]) - max(first[1], second[1])
    return shared > 0.4 * min(first[3] - first[1], second[3] - second[1])


def _score(reading: Reading) -> JsonObject:
    return {"score": reading.score} if reading.score is not None else {}
