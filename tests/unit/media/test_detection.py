"""Types are told by how a file begins."""

import pytest

from src.core.errors import InvalidInputError
from src.media.detection import ACCEPTED, check_type, detect
from tests.unit.media.media_files import noise, pdf, picture, shades, sound, tone, video, wav


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (picture(noise(), "PNG"), "image/png"),
        (picture(noise(), "JPEG"), "image/jpeg"),
        (picture(noise(), "GIF"), "image/gif"),
        (picture(noise(), "BMP"), "image/bmp"),
        (picture(noise(), "TIFF"), "image/tiff"),
        (picture(noise(), "WEBP"), "image/webp"),
        (wav(tone(8000, 0.1), 8000), "audio/wav"),
        (sound(tone(16_000, 0.2), 16_000, "mp3", "libmp3lame"), "audio/mpeg"),
        (sound(tone(16_000, 0.2), 16_000, "adts", "aac"), "audio/aac"),
        (sound(tone(16_000, 0.2), 16_000, "flac", "flac"), "audio/flac"),
        (sound(tone(48_000, 0.2), 48_000, "ogg", "libopus"), "audio/ogg"),
        (sound(tone(16_000, 0.2), 16_000, "ipod", "aac"), "audio/mp4"),
        (video(shades(2)), "video/mp4"),
        (video(shades(2), "mov", "mpeg4"), "video/mp4"),
        (video(shades(2), "webm", "libvpx"), "video/webm"),
        (video(shades(2), "avi", "mpeg4"), "video/avi"),
        (pdf([[]]), "application/pdf"),
        (b"\n\n junk before \n" + pdf([[]]), "application/pdf"),
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(20), "a zip archive"),
        (b"\x1f\x8b\x08" + bytes(20), "a gzip archive"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"  <svg xmlns='x'>", "SVG"),
        (b"#EXTM3U\nfile:///etc/passwd", "a playlist"),
        (b"just some words", "text"),
        (b"BMX is a kind of bicycle", "text"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC image"),
        (b"\x07\x01\x02\x03\x80", None),
        (b"\xff\xfb", None),
    ],
)
def test_what_a_file_is_is_told_by_its_beginning(data: bytes, found: str | None) -> None:
    assert detect(data[:4096]) == found


def test_a_pdf_behind_another_beginning_is_the_other_one() -> None:
    assert detect(picture(noise(), "GIF")[:20] + pdf([[]])) == "image/gif"


@pytest.mark.parametrize("kind", list(ACCEPTED))
def test_a_type_that_a_kind_does_not_take_is_refused_with_field_type_and_accepted_ones(kind: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_type(kind, b"PK\x03\x04", "data.input")
    assert caught.value.details == {
        "field": "data.input",
        "detected": "a zip archive",
        "accepted": list(ACCEPTED[kind]),
    }
    assert caught.value.message.startswith("`data.input` is a zip archive; as a")
