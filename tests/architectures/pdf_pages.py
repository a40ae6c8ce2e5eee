"""PDF files with words on them, written byte by byte, and what a reader that shares nothing with `src` finds there."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pypdfium2

POINTS = 200
"""Width and height of a page."""
_DPI = 150


def pdf_uri(*pages: Sequence[str]) -> str:
    """Returns a PDF as a data URI; each page is its lines of words."""
    return "data:application/pdf;base64," + base64.b64encode(_file(pages)).decode()


def read_pages(uri: str) -> list[tuple[Any, list[str], list[list[int]]]]:
    """Returns picture (uint8 height x width x 3, 150 dpi), words, and boxes in thousandths, of each page."""
    document = pypdfium2.PdfDocument(base64.b64decode(uri.partition(",")[2]))
    return [(_drawn(page), *_words(page)) for page in document]


def _drawn(page: Any) -> Any:
    return np.ascontiguousarray(np.asarray(page.render(scale=_DPI / 72).to_pil().convert("RGB")))


def _words(page: Any) -> tuple[list[str], list[list[int]]]:
    """Finds words by the blanks between them; a word's box goes around those of its letters."""
    text = page.get_textpage()
    found: list[tuple[str, list[int]]] = []
    content = text.get_text_range()
    start = 0
    for word in content.split():
        start = content.index(word, start)
        boxes = np.array([text.get_charbox(place) for place in range(start, start + len(word))])
        left, bottom = boxes[:, :2].min(axis=0)
        right, top = boxes[:, 2:].max(axis=0)
        edges = (left, POINTS - top, right, POINTS - bottom)
        found.append((word, [round(float(edge) * 1000 / POINTS) for edge in edges]))
        start += len(word)
    return [word for word, _ in found], [box for _, box in found]


def _file(pages: Sequence[Sequence[str]]) -> bytes:
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = " ".join(f"({line}) Tj 0 -24 Td" for line in lines)
        stream = f"BT /F1 14 Tf 12 {POINTS - 24} Td {shown} ET"
        size = f"/MediaBox [0 0 {POINTS} {POINTS}] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {size} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    return _with_table(objects)


def _with_table(objects: Sequence[str]) -> bytes:
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    return content + (end + trailer).encode()
