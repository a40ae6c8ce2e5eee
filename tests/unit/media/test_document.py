"""Documents: the words of a PDF with their boxes, its pages as pictures, and pictures of pages."""

import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.settings_sections import MediaSettings
from tests.unit.media.decoding import decoded_document
from tests.unit.media.media_files import encrypted_pdf, noise, pdf, picture, tiff

LINES = [(72, 700, 12, "Invoice number 4711"), (300, 396, 24, "Total")]


def ink(image: "np.typing.NDArray[np.uint8]") -> tuple[int, int, int, int]:
    """Returns the box of what is dark, from 0 to 1000."""
    rows, columns = np.nonzero(image.min(2) < 128)
    height, width, _ = image.shape
    edges = columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height
    left, top, right, bottom = (round(1000 * edge) for edge in edges)
    return left, top, right, bottom


def test_words_come_in_the_order_of_the_text_layer_with_boxes() -> None:
    document = decoded_document(pdf([LINES]))
    (page,) = document.pages
    assert (document.page_count, document.type, page.number, page.has_text) == (1, "application/pdf", 0, True)
    assert page.words == ("Invoice", "number", "4711", "Total")
    assert page.boxes.dtype == np.int32
    left, top, right, bottom = page.boxes[0].tolist()
    assert left == pytest.approx(72 / 612 * 1000, abs=3)
    assert bottom == pytest.approx((792 - 700) / 792 * 1000, abs=3)
    assert 0 < right - left < 100
    assert 5 < bottom - top < 15
    lefts = page.boxes[:3, 0]
    assert (np.diff(lefts) > 0).all()


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
@pytest.mark.parametrize("box", ["", "/CropBox [100 300 500 600]"])
def test_a_box_lies_where_the_word_is_seen(turned: int, box: str) -> None:
    page = decoded_document(pdf([[(300, 396, 24, "Total")]], extra=f"/Rotate {turned} {box}")).pages[0]
    assert page.image is not None
    assert page.boxes[0].tolist() == pytest.approx(list(ink(page.image)), abs=6)


def test_pages_are_drawn_at_the_resolution_asked_for() -> None:
    for dpi in (72, 144):
        document = decoded_document(pdf([LINES]), dpi=dpi)
        assert document.pages[0].image is not None
        assert document.pages[0].image.shape == (792 * dpi // 72, 612 * dpi // 72, 3)
        assert document.dpi == dpi


def test_colours_are_in_the_order_red_green_blue() -> None:
    image = decoded_document(pdf([[]], content=b"1 0 0 rg 0 0 612 792 re f")).pages[0].image
    assert image is not None
    assert image[400, 300].tolist() == [255, 0, 0]


def test_a_page_without_text_says_so() -> None:
    page = decoded_document(pdf([[]], content=b"0 0 100 100 re f")).pages[0]
    assert (page.words, page.has_text, page.boxes.shape) == ((), False, (0, 4))


def test_words_or_images_can_be_left_out() -> None:
    page = decoded_document(pdf([LINES]), words=False).pages[0]
    assert (page.words, page.has_text) == ((), None)
    assert page.image is not None
    page = decoded_document(pdf([LINES]), images=False).pages[0]
    assert page.image is None
    assert page.words


def test_pages_are_chosen_by_number() -> None:
    document = decoded_document(pdf([[(72, 700, 12, f"page{number}")] for number in range(5)]), pages=[3, 0])
    assert [(page.number, page.words) for page in document.pages] == [(3, ("page3",)), (0, ("page0",))]
    assert document.page_count == 5


def test_a_page_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="has 1 pages, from 0 to 0: there is no page 7"):
        decoded_document(pdf([LINES]), pages=[7])


def test_what_is_filled_into_a_form_is_text_and_is_drawn() -> None:
    appearance = b"/Tx BMC BT /F1 24 Tf 5 10 Td (Answer42) Tj ET EMC"
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Answer42) /Rect [100 380 400 420] /F 4 "
        b"/DA (/F1 24 Tf 0 g) /AP << /N 1001 0 R >> >>"
    )
    form = (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 300 40] /Resources << /Font << /F1 3 0 R >> >> /Length "
        + str(len(appearance)).encode()
        + b" >>\nstream\n"
        + appearance
        + b"\nendstream"
    )
    data = pdf(
        [[]],
        extra="/Annots [1000 0 R]",
        catalog="/AcroForm << /Fields [1000 0 R] /DR << /Font << /F1 3 0 R >> >> >>",
        objects=[field, form],
    )
    page = decoded_document(data).pages[0]
    assert page.words == ("Answer42",)
    assert page.image is not None
    assert page.boxes[0].tolist() == pytest.approx(list(ink(page.image)), abs=6)


def test_an_encrypted_pdf_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidInputError, match="is encrypted: remove its password"):
        decoded_document(encrypted_pdf())


def test_ten_thousand_pages_are_refused_before_one_is_read() -> None:
    data = pdf([[]] * 10_000)
    begin = time.monotonic()
    with pytest.raises(
        PayloadTooLargeError, match=r"has 10,000 pages to read; at most 50 are taken \(media.max_pdf_pages\)"
    ):
        decoded_document(data)
    assert time.monotonic() - begin < 10


def test_a_few_of_ten_thousand_pages_can_be_read() -> None:
    document = decoded_document(pdf([[]] * 10_000), pages=[9_999], dpi=36)
    assert (document.page_count, len(document.pages)) == (10_000, 1)


def test_pages_too_large_for_the_bound_are_drawn_smaller_and_it_is_said() -> None:
    document = decoded_document(pdf([LINES] * 3, size=(14_000, 14_000)), MediaSettings(max_pixels=1_000_000))
    images = [page.image for page in document.pages if page.image is not None]
    assert 900_000 < sum(image.shape[0] * image.shape[1] for image in images) <= 1_000_000
    assert document.dpi is not None
    assert document.dpi < 150
    assert "media.max_pixels" in document.warnings[0]


@pytest.mark.parametrize("size", [(0, 100), (100, 0), (-5, -5)])
def test_a_page_without_a_size_never_crashes(size: tuple[int, int]) -> None:
    try:
        document = decoded_document(pdf([LINES], size=size), dpi=36)
    except InvalidInputError:
        return
    assert document.pages[0].image is not None  # the library takes a usual size then


@pytest.mark.parametrize(
    "cut", [lambda data: data[:40], lambda data: b"%PDF-1.7\n" + bytes(2000), lambda data: b"%PDF-"]
)
def test_a_pdf_that_is_none_inside_is_refused(cut: Callable[[bytes], bytes]) -> None:
    with pytest.raises(
        InvalidInputError, match="`document` \\(application/pdf\\) begins like that, but cannot be read"
    ):
        decoded_document(cut(pdf([LINES])))


def test_an_archive_in_place_of_a_document_is_named_and_not_opened() -> None:
    with pytest.raises(InvalidInputError, match="is a zip archive; as a document this takes pdf, jpeg, png, tiff"):
        decoded_document(b"PK\x03\x04" + bytes(100))


def test_a_deflated_stream_is_read_as_text_and_not_by_its_size() -> None:
    content = zlib.compress(b"BT /F1 12 Tf 72 700 Td (hello) Tj ET\n" + b" " * 50_000_000)
    data = pdf([[]], content=content, content_facts="/Filter /FlateDecode")
    assert len(data) < 100_000
    try:
        assert decoded_document(data, dpi=36).pages[0].words in (("hello",), ())
    except InvalidInputError:
        pass  # the library has bounds of its own


def test_damaged_bytes_never_come_out_as_another_kind_of_error() -> None:
    data, random = pdf([LINES] * 3), np.random.default_rng(4)
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(8, len(broken), 10):
            broken[place] = random.integers(256)
        try:
            decoded_document(bytes(broken), MediaSettings(max_pixels=1_000_000), dpi=36)
            outcomes.add("decoded")
        except (InvalidInputError, PayloadTooLargeError):
            outcomes.add("refused")
    assert "decoded" in outcomes


def test_a_tiff_of_several_pages_gives_each_of_them() -> None:
    pages = [noise(20, 30, seed) for seed in range(3)]
    document = decoded_document(tiff(pages))
    assert document.page_count == 3
    for page, expected in zip(document.pages, pages, strict=True):
        assert np.array_equal(page.image, expected)
        assert (page.words, page.has_text) == ((), False)


def test_pages_of_a_tiff_are_chosen_and_bounded_like_those_of_a_pdf() -> None:
    data = tiff([noise(20, 30, seed) for seed in range(5)])
    assert [page.number for page in decoded_document(data, pages=[4, 1]).pages] == [4, 1]
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_pdf_pages"):
        decoded_document(data, MediaSettings(max_pdf_pages=4))


def test_pages_of_a_tiff_too_large_together_are_scaled_and_it_is_said() -> None:
    document = decoded_document(tiff([noise(100, 200, seed) for seed in range(4)]), MediaSettings(max_pixels=20_000))
    images = [page.image for page in document.pages if page.image is not None]
    assert sum(image.shape[0] * image.shape[1] for image in images) <= 20_000
    assert "media.max_pixels" in document.warnings[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_picture_is_a_document_of_one_page(kind: str) -> None:
    document = decoded_document(picture(noise(40, 30), kind))
    assert (document.page_count, document.dpi) == (1, None)
    assert document.pages[0].image is not None
    assert document.pages[0].image.shape == (40, 30, 3)
