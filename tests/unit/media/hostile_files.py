"""Files that mean harm, or would do some: what each is called, what it poses as, and what is said to it."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.unit.media.media_files import (
    encrypted_pdf,
    flac_of_silence,
    index_first,
    noise,
    patched,
    pdf,
    picture,
    png_bomb,
    png_header,
    shades,
    slowed,
    sound,
    told,
    tone,
    video,
    wav,
)

TEN_HOURS = 36_000


@dataclass(frozen=True)
class HostileFile:
    """`status` and `words` of the refusal, and the type that is detected."""

    kind: str
    make: Callable[[], bytes]
    status: int
    words: str
    detected: str | None


def _zip_of_zips() -> bytes:
    data = bytes(10_000_000)
    for level in range(3):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(1 if level == 0 else 10):
                archive.writestr(f"{level}-{number}", data)
        data = packed.getvalue()
    return data


def _gif_of(width: int, height: int) -> bytes:
    """A GIF whose only frame is one byte of nothing."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02D\x01\x00;"
    return b"GIF89a" + screen + frame


def _tiff_of(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _jpeg_of(width: int, height: int) -> bytes:
    data = picture(noise(), "JPEG")
    return patched(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def _ogg_of_ten_hours() -> bytes:
    """A second of sound whose last page tells of ten hours, its check sum right. Source: RFC 3533."""
    data = sound(tone(48_000), 48_000, "ogg", "libopus")
    start = data.rindex(b"OggS")
    page = patched(data[start:], 6, struct.pack("<Q", TEN_HOURS * 48_000))
    page = patched(page, 22, bytes(4))
    return data[:start] + patched(page, 22, struct.pack("<I", _ogg_sum(page)))


def _ogg_sum(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 1 << 31 else value << 1) & 0xFFFFFFFF
    return value


def _video_of_a_size_of_its_headers() -> bytes:
    """A VP8 whose first picture tells of 16383 x 16383. Source: RFC 6386, section 9.1."""
    data = video(shades(50), "webm", "libvpx")
    return patched(data, data.index(b"\x9d\x01\x2a") + 3, struct.pack("<HH", 16_383, 16_383))


def _pdf_in_a_circle() -> bytes:
    return pdf([[]]).replace(b"/Kids [10 0 R]", b"/Kids [2 0 R] ")


FILES: dict[str, HostileFile] = {
    # bombs
    "a png bomb by its header": HostileFile(
        "image", lambda: png_header(100_000, 100_000), 413, "media.max_pixels", "image/png"
    ),
    "a png bomb that unpacks": HostileFile(
        "image", lambda: png_bomb(10_000, 10_000), 413, "media.max_pixels", "image/png"
    ),
    "a png bomb within the pixels": HostileFile(
        "image", lambda: png_bomb(9_400, 9_400), 413, "media.memory_mb", "image/png"
    ),
    "a gif bomb": HostileFile("image", lambda: _gif_of(65_535, 65_535), 413, "media.max_pixels", "image/gif"),
    "a tiff bomb": HostileFile("image", lambda: _tiff_of(100_000, 100_000), 413, "media.max_pixels", "image/tiff"),
    "a tiff bomb as a document": HostileFile(
        "document", lambda: _tiff_of(100_000, 100_000), 413, "media.max_pixels", "image/tiff"
    ),
    "a jpeg bomb": HostileFile("image", lambda: _jpeg_of(65_500, 65_500), 413, "media.max_pixels", "image/jpeg"),
    "zips in zips for a picture": HostileFile("image", _zip_of_zips, 400, "is a zip archive", "a zip archive"),
    "zips in zips for a document": HostileFile("document", _zip_of_zips, 400, "is a zip archive", "a zip archive"),
    "zeros in gzip": HostileFile(
        "video", lambda: b"\x1f\x8b" + zlib.compress(bytes(10_000_000)), 400, "gzip", "a gzip archive"
    ),
    # cut off
    "half a png": HostileFile("image", lambda: picture(noise(300, 300))[:5000], 400, "", "image/png"),
    "half a jpeg": HostileFile("image", lambda: picture(noise(300, 300), "JPEG")[:5000], 400, "", "image/jpeg"),
    "half a webp": HostileFile("image", lambda: picture(noise(300, 300), "WEBP")[:5000], 400, "", "image/webp"),
    "half a wav": HostileFile("audio", lambda: wav(tone(8000, 4), 8000)[:40_000], 400, "is cut off", "audio/wav"),
    "half a flac": HostileFile(
        "audio", lambda: sound(tone(48_000, 4), 48_000, "flac", "flac")[:9_000], 400, "", "audio/flac"
    ),
    "half an mp4": HostileFile(
        "video", lambda: index_first(video([noise(48, 64, n) for n in range(50)]))[:40_000], 400, "", "video/mp4"
    ),
    "an mp4 without its index": HostileFile(
        "video", lambda: video(shades(50)).partition(b"moov")[0], 400, "cannot be read", "video/mp4"
    ),
    "the beginning of a pdf": HostileFile("document", lambda: pdf([[]])[:60], 400, "", "application/pdf"),
    "the first bytes of a png": HostileFile("image", lambda: b"\x89PNG\r\n\x1a\n", 400, "", "image/png"),
    # one thing that poses as another
    "a gif that is a script": HostileFile(
        "image", lambda: b"GIF89a/*" + b"\0" * 6 + b"*/=1;alert(document.cookie)//", 400, "", "image/gif"
    ),
    "a page for a picture": HostileFile(
        "image", lambda: b"<!doctype html><script>fetch('/')</script>", 400, "is HTML", "HTML"
    ),
    "a page behind spaces": HostileFile("image", lambda: b"\n  <HTML><img src=x>", 400, "is HTML", "HTML"),
    "an svg": HostileFile(
        "image", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>', 400, "SVG", "SVG"
    ),
    "an svg behind its declaration": HostileFile(
        "image",
        lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        400,
        "",
        "XML",
    ),
    "postscript for a picture": HostileFile(
        "image", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file", 400, "PostScript", "PostScript"
    ),
    "a pdf for a picture": HostileFile(
        "image", lambda: pdf([[]]), 400, "is application/pdf; as an image this takes jpeg", "application/pdf"
    ),
    "a picture for sound": HostileFile("audio", lambda: picture(noise()), 400, "as an audio this takes", "image/png"),
    "sound for a video": HostileFile("video", lambda: wav(tone(8000), 8000), 400, "is audio/wav", "audio/wav"),
    "sound in a video's clothes": HostileFile(
        "video", lambda: sound(tone(48_000), 48_000, "webm", "libopus"), 400, "has no picture track", "video/webm"
    ),
    "a playlist": HostileFile(
        "video", lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 400, "is a playlist", "a playlist"
    ),
    "a playlist of ffmpeg": HostileFile(
        "audio", lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n", 400, "is a playlist", "a playlist"
    ),
    "a playlist behind a brand": HostileFile(
        "video", lambda: b"\0\0\0\x10ftypisom\0\0\0\0#EXTM3U\nfile:///etc/passwd\n", 400, "", "video/mp4"
    ),
    "a program": HostileFile("document", lambda: b"\x7fELF" + bytes(200), 400, "is a program", "a program"),
    "words": HostileFile("document", lambda: b"root:x:0:0:root:/root:/bin/bash\n", 400, "is text", "text"),
    "noise": HostileFile("audio", lambda: b"\x81" + noise(9, 9, 5).tobytes(), 400, "no type known here", None),
    # nothing, and what is no number
    **{
        f"an empty {kind}": HostileFile(kind, bytes, 400, "is empty", "empty")
        for kind in ("image", "audio", "video", "document")
    },
    "a picture of no size": HostileFile("image", lambda: png_header(0, 0), 400, "", "image/png"),
    "a picture without height": HostileFile("image", lambda: _gif_of(40, 0), 400, "", "image/gif"),
    "sound of no samples": HostileFile("audio", lambda: wav(np.zeros(0, np.int16), 8000), 400, "no sound", "audio/wav"),
    "sound that is no number": HostileFile(
        "audio", lambda: wav(np.full(1000, np.nan, np.float32), 8000), 400, "NaN", "audio/wav"
    ),
    "sound without bounds": HostileFile(
        "audio", lambda: wav(np.full(1000, -np.inf, np.float32), 8000), 400, "NaN or infinite", "audio/wav"
    ),
    # headers that lie, and lengths
    "ten hours of silence": HostileFile(
        "audio", lambda: flac_of_silence(TEN_HOURS), 413, "media.max_audio_seconds", "audio/flac"
    ),
    "ten hours of silence without a word": HostileFile(
        "audio", lambda: flac_of_silence(TEN_HOURS, told=False), 413, "media.max_audio_seconds", "audio/flac"
    ),
    "a second that tells of ten hours": HostileFile(
        "audio", _ogg_of_ten_hours, 413, "media.max_audio_seconds", "audio/ogg"
    ),
    "a video that tells of ten hours": HostileFile(
        "video", lambda: told(video(shades(50), "webm", "libvpx"), TEN_HOURS), 413, "36,000 s", "video/webm"
    ),
    "a video spread over ten hours": HostileFile(
        "video", lambda: slowed(video(shades(50)), 18_000), 413, "media.max_video_seconds", "video/mp4"
    ),
    "a video that tells of more than it has": HostileFile(
        "video", lambda: told(video(shades(50), "webm", "libvpx"), 300), 400, "is cut off", "video/webm"
    ),
    "a video larger than it is": HostileFile("video", _video_of_a_size_of_its_headers, 400, "is damaged", "video/webm"),
    "ten thousand pages": HostileFile(
        "document", lambda: pdf([[]] * 10_000), 413, "has 10,000 pages", "application/pdf"
    ),
    "an encrypted pdf": HostileFile("document", encrypted_pdf, 400, "password", "application/pdf"),
    "a pdf whose pages go in a circle": HostileFile("document", _pdf_in_a_circle, 400, "", "application/pdf"),
    "a tiff that points at itself": HostileFile(
        "document", lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", 400, "", "image/tiff"
    ),
}
