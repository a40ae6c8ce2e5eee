"""Images of every sort become upright RGB."""

import io

import numpy as np
import pytest
from PIL import Image

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.settings_sections import MediaSettings
from tests.unit.media.decoding import decoded_image
from tests.unit.media.media_files import noise, picture, png_header


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("JPEG", {"quality": 95})],
)
def test_every_format_gives_its_pixels(kind: str, options: dict[str, object]) -> None:
    gradient = np.mgrid[0:40, 0:60][1].astype(np.uint8)[:, :, None].repeat(3, 2) * 4
    found = decoded_image(picture(gradient, kind, **options))
    assert found.pixels.shape == (40, 60, 3)
    assert found.pixels.dtype == np.uint8
    assert np.abs(found.pixels.astype(int) - gradient).max() <= (0 if kind != "JPEG" else 4)


def test_avif_is_read_where_pillow_can() -> None:
    if ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow has no AVIF")
    assert decoded_image(picture(noise(), "AVIF")).type == "image/avif"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_wrote_down_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[:8, 16:] = (0, 255, 0)
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    assert np.array_equal(decoded_image(picture(stored, "PNG", exif=exif)).pixels, upright)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (10, 10, 10, 255))
    image.putpixel((0, 0), (200, 0, 0, 0))
    converted = image.convert("LA") if mode == "LA" else image.quantize(8) if mode == "PA" else image
    pixels = decoded_image(picture(converted)).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [10, 10, 10]


def test_what_is_half_transparent_is_mixed_with_white() -> None:
    pixels = decoded_image(picture(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))).pixels
    assert pixels[0, 0].tolist() == [127, 127, 127]


def test_a_palette_with_one_transparent_shade_is_laid_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 90, 90, 90])
    image.putpixel((1, 0), 1)
    pixels = decoded_image(picture(image, "GIF", transparency=0)).pixels
    assert pixels[0].tolist() == [[255, 255, 255], [90, 90, 90]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut(kind: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = decoded_image(picture(Image.fromarray(values), kind)).pixels
    assert np.array_equal(pixels[:, :, 0], (values >> 8).astype(np.uint8))


def test_floats_from_nought_to_one_span_the_range() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    pixels = decoded_image(picture(Image.fromarray(values), "TIFF")).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 2] == 255


def test_floats_that_are_no_numbers_are_refused() -> None:
    values = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(InvalidInputError, match="not numbers"):
        decoded_image(picture(Image.fromarray(values), "TIFF"))


def test_cmyk_becomes_rgb() -> None:
    found = decoded_image(picture(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(found.pixels[4, 4].astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "lime")]
    data = picture(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(decoded_image(data).pixels[0, 0].astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_size_past_the_bound_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(PayloadTooLargeError, match=r"pixels; at most 89,478,485 are taken \(media.max_pixels\)"):
        decoded_image(png_header(*size))


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match="`image` \\(image/png\\)"):
        decoded_image(png_header(*size))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_picture_that_is_cut_off_is_refused(kind: str) -> None:
    data = picture(noise(200, 200), kind)
    with pytest.raises(InvalidInputError, match="as an image this takes jpeg, png") as caught:
        decoded_image(data[: len(data) // 2])
    assert caught.value.details["field"] == "image"
    assert caught.value.details["detected"] == f"image/{kind.lower()}"
    assert "image/webp" in caught.value.details["accepted"]


def test_damaged_bytes_never_come_out_as_another_kind_of_error() -> None:
    data, random = picture(noise(64, 64), "TIFF", compression="tiff_lzw"), np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(4, len(broken), 8):
            broken[place] = random.integers(256)
        try:
            decoded_image(bytes(broken), MediaSettings(max_pixels=100_000))
            outcomes.add("decoded")
        except (InvalidInputError, PayloadTooLargeError):
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


def test_a_file_with_something_behind_it_is_read_as_what_it_begins_like() -> None:
    pixels = noise()
    archive = io.BytesIO(b"PK\x03\x04 and the rest of an archive")
    assert np.array_equal(decoded_image(picture(pixels) + archive.getvalue()).pixels, pixels)


def test_a_gif_header_before_another_format_is_not_read_as_the_other_one() -> None:
    with pytest.raises(InvalidInputError, match="image/gif"):
        decoded_image(b"GIF89a" + picture(noise()))
