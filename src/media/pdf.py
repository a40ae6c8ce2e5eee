"""PDF pages to words with boxes, and to images. Runs inside decoder processes, on strangers' bytes."""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from src.media.job import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINTS_PER_INCH = 72.0
_SPAN = 1000
"""Boxes are written on a page of 1000 by 1000, as LayoutLM and its kin want them."""
_HYPHENS = (0x2, 0xFFFE)  # how PDFium writes one at the end of a line

_NO_BOXES = np.zeros((0, 4), np.int32)

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PdfWord:
    """A word and its box in the page's own units: left, bottom, right, top."""

    text: str
    box: Box


@dataclass(frozen=True, slots=True)
class PdfPage:
    """A page: uint8, height x width x 3 (RGB) on white; words, and their boxes on the page as it is seen."""

    image: "NDArray[np.uint8] | None"
    words: list[str]
    boxes: "NDArray[np.int32]"


class PdfReader:
    """An open PDF; forms are filled in as they are seen. A context manager."""

    def __init__(self, job: Job) -> None:
        self._job = job
        try:
            self._document = pypdfium2.PdfDocument(job.source)
        except pypdfium2.PdfiumError as exc:
            if exc.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
                raise job.invalid("is encrypted: remove its password and send it again") from exc
            raise job.invalid(f"begins like that, but cannot be read: {exc}") from exc
        self._document.init_forms()

    def __enter__(self) -> "PdfReader":
        return self

    def __exit__(self, *args: object) -> None:
        self._document.close()

    def __len__(self) -> int:
        return len(self._document)

    def size(self, number: int) -> tuple[float, float]:
        """Returns a page's width and height as it is seen, in points; raises where it is damaged or has no size."""
        with self._reading(number):
            width, height = map(float, self._document.get_page_size(number))
        if not (math.isfinite(width * height) and width * height > 0):
            raise self._job.invalid(f"has a page {number + 1} without a size")
        return width, height

    def read(self, number: int, dpi: float | None, *, words: bool) -> PdfPage:
        """Returns a page: drawn where `dpi` is given, and its words where they are wanted."""
        with self._reading(number):
            page = self._page(number)
            try:
                image = self._render(page, dpi) if dpi is not None else None
                return PdfPage(image, *(self._words(page) if words else ([], _NO_BOXES)))
            finally:
                page.close()

    @contextmanager
    def _reading(self, number: int) -> Iterator[None]:
        try:
            yield
        except pypdfium2.PdfiumError as exc:
            raise self._job.invalid(f"has a page {number + 1} that cannot be read: {exc}") from exc

    def _page(self, number: int) -> Any:
        page = self._document[number]
        if page.formenv and page.flatten() == pdfium.FLATTEN_SUCCESS:
            page.close()  # what is filled into its form is part of it when it is read anew
            page = self._document[number]
        return page

    def _render(self, page: Any, dpi: float) -> "NDArray[np.uint8]":
        bitmap = page.render(scale=dpi / POINTS_PER_INCH, rev_byteorder=True)
        try:
            return np.array(bitmap.to_numpy()[:, :, :3], order="C")
        finally:
            bitmap.close()

    def _words(self, page: Any) -> tuple[list[str], "NDArray[np.int32]"]:
        text = page.get_textpage()
        try:
            found = list(_words(text))
        finally:
            text.close()
        boxes = np.array([_as_seen(page, word.box) for word in found], np.int32).reshape(-1, 4)
        return [word.text for word in found], boxes


def _words(text: Any) -> Iterator[PdfWord]:
    """Yields the words between white space; each is put together from its characters."""
    letters: list[str] = []
    boxes: list[Box] = []
    for place in range(max(0, text.count_chars())):
        letter = _letter(pdfium.FPDFText_GetUnicode(text, place))
        if letter and not letter.isspace():
            letters.append(letter)
            boxes.append(_box(text, place))
        elif letters:
            yield PdfWord("".join(letters), _around(boxes))
            letters, boxes = [], []
    if letters:
        yield PdfWord("".join(letters), _around(boxes))


def _letter(code: int) -> str:
    """Returns a character; "" for what is none."""
    if code in _HYPHENS:
        return "-"
    if code < 0x20 or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return ""
    return chr(code)


def _box(text: Any, place: int) -> Box:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium.FPDFText_GetCharBox(text, place, left, right, bottom, top)
    return left.value, bottom.value, right.value, top.value


def _around(boxes: list[Box]) -> Box:
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _as_seen(page: Any, box: Box) -> tuple[int, int, int, int]:
    """Returns a box on the page as it is seen: cropped and turned, from the top left."""
    corners = [_point(page, box[0], box[1]), _point(page, box[2], box[3])]
    across, down = sorted(corner[0] for corner in corners), sorted(corner[1] for corner in corners)
    return across[0], down[0], across[1], down[1]


def _point(page: Any, x: float, y: float) -> tuple[int, int]:
    across, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, _SPAN, _SPAN, 0, x, y, across, down)
    return min(max(across.value, 0), _SPAN), min(max(down.value, 0), _SPAN)
