"""Documents to pages: PDF, and pictures of pages (TIFF with several). Runs inside decoder processes."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from src.media.image import open_image, pixels, read_pixels
from src.media.job import Answer, Job
from src.media.pdf import POINTS_PER_INCH, PdfReader
from src.media.wishes import DocumentWishes

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decode(job: Job) -> Answer:
    """Returns the pages asked for; see `DecodedDocument`."""
    assert isinstance(job.wishes, DocumentWishes)
    sheaf = _Sheaf(job.wishes)
    facts = _pdf(job, job.wishes, sheaf) if job.type == "application/pdf" else _pictures(job, job.wishes, sheaf)
    return sheaf.arrays, {**facts, "pages": sheaf.pages}


class _Sheaf:
    """Gathers pages, as facts that name their arrays."""

    def __init__(self, wishes: DocumentWishes) -> None:
        self._wishes = wishes
        self.arrays: list[Any] = []
        self.pages: list[dict[str, Any]] = []

    def add(
        self,
        number: int,
        image: "NDArray[np.uint8] | None",
        words: Sequence[str] = (),
        boxes: "NDArray[np.int32] | None" = None,
    ) -> None:
        """Adds one page."""
        self.pages.append(
            {
                "number": number,
                "image": None if image is None else self._place(image),
                "words": words,
                "boxes": self._place(np.zeros((0, 4), np.int32) if boxes is None else boxes),
                "has_text": bool(words) if self._wishes.words else None,
            }
        )

    def _place(self, array: Any) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1


def _pdf(job: Job, wishes: DocumentWishes, sheaf: _Sheaf) -> dict[str, Any]:
    with PdfReader(job) as reader:
        numbers = _chosen(job, wishes, len(reader))
        dpi, warnings = _fitting_dpi(job, wishes, [reader.size(number) for number in numbers])
        for number in numbers:
            page = reader.read(number, dpi if wishes.images else None, words=wishes.words)
            sheaf.add(number, page.image, page.words, page.boxes)
        return {"page_count": len(reader), "dpi": dpi if wishes.images else None, "warnings": warnings}


def _pictures(job: Job, wishes: DocumentWishes, sheaf: _Sheaf) -> dict[str, Any]:
    with open_image(job) as image:
        # A TIFF's pictures are pages; those of a GIF or PNG are an animation.
        count = _count(job, image) if job.type == "image/tiff" else 1
        numbers = _chosen(job, wishes, count)
        scale, warnings = _fitting_scale(job, wishes, list(_sizes(job, image, numbers)))
        for number in numbers:
            sheaf.add(number, _picture(job, image, number, scale) if wishes.images else None)
        return {"page_count": count, "dpi": None, "warnings": warnings}


def _chosen(job: Job, wishes: DocumentWishes, count: int) -> list[int]:
    """Returns the page numbers to read; raises for one that is not there, or for too many."""
    bound = job.settings.max_pdf_pages
    numbers = list(range(count)) if wishes.pages is None else list(dict.fromkeys(wishes.pages))
    if numbers and max(numbers) >= count:
        raise job.invalid(f"has {count} pages, from 0 to {count - 1}: there is no page {max(numbers)}")
    if len(numbers) > bound:
        raise job.too_large(f"has {len(numbers):,} pages to read", "max_pdf_pages", bound)
    return numbers


def _fitting_dpi(job: Job, wishes: DocumentWishes, sizes: list[tuple[float, float]]) -> tuple[float, list[str]]:
    per_inch = [(width / POINTS_PER_INCH) * (height / POINTS_PER_INCH) for width, height in sizes]
    together = sum(per_inch) * wishes.dpi**2
    bound = job.settings.max_pixels
    if not wishes.images or together <= bound:
        return wishes.dpi, []
    # Sides are rounded up to whole pixels.
    dpi = wishes.dpi * math.sqrt(bound / together) * 0.999
    warning = (
        f"{len(sizes)} pages are drawn at {dpi:.1f} dpi, not {wishes.dpi:g}: together they may hold {bound:,} pixels"
    )
    return dpi, [f"{warning} (media.max_pixels)"]


def _fitting_scale(job: Job, wishes: DocumentWishes, sizes: list[tuple[int, int]]) -> tuple[float, list[str]]:
    together, bound = sum(width * height for width, height in sizes), job.settings.max_pixels
    if not wishes.images or together <= bound:
        return 1.0, []
    scale = math.sqrt(bound / together)
    warning = f"{len(sizes)} pages are scaled by {scale:.2f}: together they may hold {bound:,} pixels"
    return scale, [f"{warning} (media.max_pixels)"]


def _count(job: Job, image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as exc:
        raise job.invalid("is damaged: its pages cannot be counted") from exc


def _sizes(job: Job, image: Image.Image, numbers: list[int]) -> Iterator[tuple[int, int]]:
    for number in numbers:
        _turn_to(job, image, number)
        job.check_pixels(*image.size)
        yield image.size


def _picture(job: Job, image: Image.Image, number: int, scale: float) -> "NDArray[np.uint8]":
    _turn_to(job, image, number)
    page = read_pixels(image, job)
    if scale == 1:
        return page
    smaller = max(1, int(page.shape[1] * scale)), max(1, int(page.shape[0] * scale))
    return pixels(Image.fromarray(page).resize(smaller, Image.Resampling.BOX))


def _turn_to(job: Job, image: Image.Image, number: int) -> None:
    try:
        image.seek(number)
    except Exception as exc:
        raise job.invalid(f"is damaged: its page {number + 1} cannot be read") from exc
