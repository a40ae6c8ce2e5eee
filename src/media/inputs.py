"""What a caller may hand over as media, and how it becomes content.

| given | taken as |
|---|---|
| text that begins with `data:` | a data URI |
| text that begins with `http://` or `https://` | a URL, fetched under guard |
| text with another scheme (`file://`, `ftp://` …) | refused |
| other text | base64 or a path, see `is_base64` |
| `{"path": …}`, `{"url": …}`, `{"base64": …}` | just that |
| an `UploadedFile` | the file |
| bytes, bytearray, memoryview | the bytes |
| from a Python caller only: `Path`, an open binary file | the file |

A path from an HTTP request is looked for below the media roots only; a Python caller's is any.
"""

import base64
import binascii
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from src.core.errors import InvalidInputError, ValidationError
from src.core.settings_sections import MediaSettings
from src.core.threads import in_thread
from src.media.content import Content, new_file, write_all
from src.media.detection import detect
from src.media.fetching import Fetcher
from src.media.paths import open_below, open_trusted
from src.media.pool import stored
from src.media.problems import too_many_bytes

LONG_TEXT = 1024
"""Text without a single character that base64 lacks is no path when it is longer than this."""
SHORT_TEXT = 32
"""No media file is so small that its base64 is shorter than this."""
PATH_MAX = 4096
"""No path is longer than this, on Linux."""
_IN_LOOP_TEXT = 1 << 20
_SLICE = 1 << 22
_HEAD_TEXT = 5464  # a multiple of four: what it decodes to is a head that can be looked at
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]*={0,2}\s*", re.ASCII)
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*):(?://|(?=[^\\]))", re.ASCII | re.IGNORECASE)
_DATA_URI = re.compile(r"data:([^,]{0,500}),", re.ASCII | re.IGNORECASE)
_ALONE = ("path", "url", "base64")


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file that came with a request and lies on our disk; `name` is what its sender calls it."""

    path: Path
    name: str = ""


class Inputs:
    """Turns what callers hand over into contents, within the bounds of the settings."""

    def __init__(self, settings: MediaSettings, roots: Sequence[Path], fetcher: Fetcher) -> None:
        self._settings = settings
        self._roots = tuple(roots)
        self._fetcher = fetcher

    async def take(self, value: Any, kind: str, field: str, *, trusted: bool) -> Content:
        """Returns a value as content, which the caller closes. `trusted`: it comes from a caller in this process.

        Raises `ValidationError` for what is no input at all, `InvalidInputError` for one that cannot be used and
        `PayloadTooLargeError` past the bound of the kind.
        """
        bound = self._settings.max_bytes(kind)
        if isinstance(value, str):
            return await self._text(value, kind, field, trusted)
        if isinstance(value, UploadedFile):
            return await in_thread(lambda: open_trusted(value.path, kind, field, bound))
        if isinstance(value, bytes | bytearray | memoryview):
            return await stored(value, kind, field, self._settings)
        if isinstance(value, dict) and len(value) == 1 and isinstance(text := next(iter(value.values())), str):
            return await self._named(next(iter(value)), text, kind, field, trusted)
        if trusted and isinstance(value, os.PathLike):
            return await in_thread(lambda: open_trusted(value, kind, field, bound))
        if trusted and hasattr(value, "read"):
            return await stored(await in_thread(lambda: _read(value, kind, field, bound)), kind, field, self._settings)
        raise ValidationError(
            f"`{field}` must be a path, an http(s) URL, a data: URI, base64 text or an uploaded file, "
            f"not {_type_name(value)}",
            details={"field": field},
        )

    async def _text(self, text: str, kind: str, field: str, trusted: bool) -> Content:
        if not text.strip():
            raise InvalidInputError(f"`{field}` is empty text", details={"field": field})
        text = text.lstrip()
        scheme = _SCHEME.match(text)
        name = scheme[1].lower() if scheme else ""
        if name == "data":
            return await self._data_uri(text, kind, field)
        if name in ("http", "https"):
            return await self._fetcher.fetch(text.strip(), kind, field)
        if name and ("://" in text[:40] or name == "file"):
            raise InvalidInputError(
                f"`{field}`: addresses of {name}: are not read; give a path, an http(s) URL, a data: URI or base64",
                details={"field": field},
            )
        return await self._named("base64" if is_base64(text) else "path", text, kind, field, trusted)

    async def _named(self, how: str, text: str, kind: str, field: str, trusted: bool) -> Content:
        bound = self._settings.max_bytes(kind)
        if how == "url":
            return await self._fetcher.fetch(text, kind, field)
        if how == "base64":
            return await self._base64(text, kind, field)
        if how != "path":
            raise ValidationError(
                f"`{field}` may name one of {', '.join(_ALONE)}, not '{how}'", details={"field": field}
            )
        if trusted:
            return await in_thread(lambda: open_trusted(text, kind, field, bound))
        return await in_thread(lambda: open_below(text, self._roots, kind, field, bound))

    async def _data_uri(self, text: str, kind: str, field: str) -> Content:
        match = _DATA_URI.match(text)
        if match is None:
            raise InvalidInputError(f"`{field}`: a data: URI is data:<type>;base64,<data>", details={"field": field})
        body = text[match.end() :]
        # Its type is not believed: what the bytes are is looked at.
        if match[1].replace(" ", "").lower().endswith(";base64"):
            return await self._base64(
                body if "%" not in body else unquote_to_bytes(body).decode("latin-1"), kind, field
            )
        if len(body) > 3 * self._settings.max_bytes(kind):
            raise too_many_bytes(kind, field, None, self._settings.max_bytes(kind))
        return await stored(unquote_to_bytes(body), kind, field, self._settings)

    async def _base64(self, text: str, kind: str, field: str) -> Content:
        bound = self._settings.max_bytes(kind)
        # Line breaks are a thirtieth of it at most, as far as anybody writes them.
        if len(text) > bound * 1.4 + 100:
            raise too_many_bytes(kind, field, None, bound)
        content = (
            await in_thread(lambda: _decoded_content(text, field))
            if len(text) > _IN_LOOP_TEXT
            else _decoded_content(text, field)
        )
        if content.size > bound:
            content.close()
            raise too_many_bytes(kind, field, content.size, bound)
        return content


def is_base64(text: str) -> bool:
    """Whether text without a scheme is base64; else it is a path.

    It is when every character is one of base64 (either alphabet, line breaks), and it either is longer than 1024
    characters, or ends in `=`, or has 32 characters and decodes to what begins like a media file. A name with a
    dot is always a path. `/9j/4AAQ…` is a JPEG and not a folder `9j`; whoever wants to be sure writes a data: URI,
    `{"base64": …}` or `{"path": …}`.
    """
    if len(text) > PATH_MAX:
        return True
    if not _BASE64.fullmatch(text):
        return False
    if len(text) > LONG_TEXT or text.rstrip().endswith("="):
        return True
    if len(text) < SHORT_TEXT:
        return False
    try:
        found = detect(_decoded(text[:_HEAD_TEXT], ""))
    except InvalidInputError:
        return False
    return found is not None and "/" in found


def _decoded_content(text: str, field: str) -> Content:
    """Decodes in slices, straight to where it is kept: large ones take no time from others, nor memory twice."""
    descriptor, size, carry = new_file(), 0, ""
    try:
        for start in range(0, len(text), _SLICE):
            piece = carry + "".join(text[start : start + _SLICE].split())
            is_last = start + _SLICE >= len(text)
            whole = len(piece) if is_last else len(piece) - len(piece) % 4
            data, carry = _decoded(piece[:whole], field), piece[whole:]
            write_all(descriptor, data)
            size += len(data)
    except BaseException:
        os.close(descriptor)
        raise
    return Content(descriptor, size, field)


def _decoded(text: str, field: str) -> bytes:
    compact = "".join(text.split())
    plain = compact.translate(_URL_SAFE)
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(f"`{field}` is no base64: {exc}", details={"field": field}) from exc


_URL_SAFE = str.maketrans("-_", "+/")


def _read(file: Any, kind: str, field: str, bound: int) -> bytes:
    try:
        data = file.read(bound + 1)
    except (OSError, ValueError) as exc:
        raise InvalidInputError(f"`{field}`: the file cannot be read: {exc}", details={"field": field}) from exc
    if not isinstance(data, bytes | bytearray):
        text = isinstance(file, io.TextIOBase) or isinstance(data, str)
        problem = "the file is open as text: open it with mode 'rb'" if text else "reading it gives no bytes"
        raise InvalidInputError(f"`{field}`: {problem}", details={"field": field})
    if len(data) > bound:
        raise too_many_bytes(kind, field, None, bound)
    return bytes(data)


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
