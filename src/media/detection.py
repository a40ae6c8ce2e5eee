"""What bytes are, judged by how they begin; a name or a content type is never believed.

Each kind of media has a closed list of types. A decoder is told the type and tries no other, so that a
file that is valid in two ways is read in the one way it begins.
"""

import codecs
from typing import Any

from src.core.errors import InvalidInputError

HEAD_BYTES = 4096
"""How much of a file `detect` wants to see."""

ACCEPTED: dict[str, tuple[str, ...]] = {
    "image": ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"),
    "audio": (
        "audio/wav",
        "audio/mpeg",
        "audio/flac",
        "audio/ogg",
        "audio/mp4",
        "audio/aac",
        "video/webm",
        "video/mp4",
        "video/avi",
    ),
    "video": ("video/mp4", "video/webm", "video/avi"),
    "document": ("application/pdf", "image/jpeg", "image/png", "image/tiff", "image/webp", "image/gif", "image/bmp"),
}
"""Kind of media → the types that are decoded. `video/webm` is Matroska too, `video/mp4` QuickTime too."""

_READABLE = {
    "video/webm": "webm/mkv",
    "video/mp4": "mp4/mov",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg/opus",
}
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"%PDF-", "application/pdf"),
    # Known, so that a refusal can name them.
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS", "PostScript"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"FLV\x01", "a Flash video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (asf/wma/wmv)"),
    (b"\x00\x00\x01\xba", "an MPEG programme stream"),
    (b"caff", "Core Audio (caf)"),
    (b"#!AMR", "AMR audio"),
)
_RIFF = {b"WAVE": "audio/wav", b"AVI ": "video/avi", b"WEBP": "image/webp"}
_MARKUP = ((b"<?xml", "XML"), (b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<", "markup"))


def detect(head: bytes) -> str | None:
    """Returns the type of a file that begins like this; None where nothing known begins so.

    A media type (`image/png`) for what some kind of media accepts, else words for people (`a zip archive`).
    """
    for beginning, found in _BEGINNINGS:
        if head.startswith(beginning):
            return found
    found_here = _riff(head) or _iso_media(head) or _bmp(head) or _mpeg_audio(head)
    if found_here:
        return found_here
    # The standard lets something stand before a PDF's header; what begins like another type is no PDF.
    if b"%PDF-" in head[:1024]:
        return "application/pdf"
    return _text(head)


def check_type(kind: str, head: bytes, field: str) -> str:
    """Returns the type of a file, or raises `InvalidInputError` with the field, the type and the accepted ones."""
    found = detect(head)
    if found in ACCEPTED[kind]:
        return found
    raise InvalidInputError(
        f"`{field}` is {found or 'of no type known here'}; {accepted_in_words(kind)}",
        details=details(field, found, kind),
    )


def accepted_in_words(kind: str) -> str:
    """Returns what a kind of input takes, as people call it: `as an image this takes jpeg, png …`."""
    names = [_READABLE.get(found, found.partition("/")[2]) for found in ACCEPTED[kind]]
    return f"as {'an' if kind[0] in 'ai' else 'a'} {kind} this takes {', '.join(names)}"


def details(field: str, found: str | None, kind: str) -> dict[str, Any]:
    """Returns what every error about an input's type carries: the field, the detected type and the accepted ones."""
    return {"field": field, "detected": found, "accepted": list(ACCEPTED[kind])}


def _riff(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12], "a RIFF file")
    return None


def _iso_media(head: bytes) -> str | None:
    """Returns the type of a file of ISO/IEC 14496-12 boxes, told by the brands in its first one."""
    name = head[4:8]
    if name == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "image/avif"
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return "image/avif" if b"avif" in head[16:64] else "a HEIC image"
        return "audio/mp4" if brand in (b"M4A ", b"M4B ", b"M4P ") else "video/mp4"
    # QuickTime files older than brands.
    return "video/mp4" if name in (b"moov", b"mdat", b"wide", b"skip", b"free") and head[0] == 0 else None


def _bmp(head: bytes) -> str | None:
    # "BM", the size, two reserved words that are zero, and an offset that lies behind the headers.
    if head[:2] != b"BM" or head[6:10] != bytes(4):
        return None
    return "image/bmp" if int.from_bytes(head[10:14], "little") >= 26 else None


def _mpeg_audio(head: bytes) -> str | None:
    if head[:3] == b"ID3":
        return "audio/mpeg"
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = head[1] >> 1 & 3
    if layer == 0:
        return "audio/aac" if head[1] & 0xF0 == 0xF0 else None
    # Neither the reserved version, nor the forbidden bit rate or sample rate.
    known = head[1] >> 3 & 3 != 1 and head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3
    return "audio/mpeg" if known else None


def _text(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, found in _MARKUP:
        if start.startswith(beginning):
            return found
    if not head:
        return "empty"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # it may end within a character
    except UnicodeDecodeError:
        return None
    return "text" if all(letter.isprintable() or letter.isspace() for letter in text) else None
