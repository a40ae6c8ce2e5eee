"""Parses a multipart form into files and texts, piece by piece, off the event loop.

The parser is `streaming-form-data`. It holds the GIL while it looks for a boundary, so it gets small pieces.
What it does not bound (headers, what follows the end) is bounded here, and its own targets are not used:
they trust file names, and the one for several files mistakes the content type for the name (2.1).
"""

import importlib
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from src.core.errors import PayloadTooLargeError, PlatformError, ValidationError
from src.core.sources.file_names import checked_path, new_file
from src.core.sources.full_disk import full_disk_told

HOW = "curl -F name=my-model -F files=@model.safetensors -F files=@config.json …"
FILE_FIELDS = ("files", "file")
TEXT_FIELDS = ("name", "description")

_PIECE = 64 * 1024  # bytes parsed at once
_MAX_SILENT = 64 * 1024  # bytes in a row that belong to no part: headers, or what follows the end
_MAX_TEXT = 16 * 1024
_MAX_BOUNDARY = 200
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived: path → size in bytes of each file, and field → text."""

    files: dict[str, int]
    fields: dict[str, str]

    @property
    def name(self) -> str | None:
        """The name that the caller gave; None where it was left out."""
        return self.fields.get("name") or None


class FormIntake:
    """One form on its way to disk; its methods block, and one thread at a time is let in."""

    def __init__(self, content_type: str, folder: Path, *, max_bytes: int, max_files: int) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}
        self.fields: dict[str, str] = {}
        self._max_bytes, self._max_files = max_bytes, max_files
        self._lock = threading.Lock()
        self._open: _Part | None = None
        self._discarded = False
        self._body = self._silent = 0
        self._tail = b""
        self._parser, boundary = _parser(content_type)
        self._end = b"--" + boundary + b"--"
        for name in FILE_FIELDS:
            self._parser.register(name, _FilePart(self, name))
        for name in TEXT_FIELDS:
            self._parser.register(name, _TextPart(self, name))
        with full_disk_told():
            folder.mkdir(parents=True)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the body."""
        with self._lock, full_disk_told():
            self._body += len(data)
            if self._body > self._max_bytes:
                raise too_large(self._max_bytes)
            for start in range(0, len(data), _PIECE):
                self._parse(data[start : start + _PIECE])

    def finish(self) -> Received:
        """Returns what arrived; raises `ValidationError` where the body is cut off or holds no file."""
        with self._lock:
            if self._open or self._end not in self._tail:
                raise ValidationError(f"The form ends in the middle: send all of it, as in {HOW}")
            if not self.files:
                raise ValidationError(f"There is no file in the field 'files': {HOW}")
            return Received(self.files, self.fields)

    def discard(self) -> None:
        """Removes everything, once a write under way has ended; nothing is written afterwards."""
        with self._lock:
            self._discarded = True
            if self._open:
                self._open.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, part: "_Part") -> None:
        """Notes that a part begins."""
        if self._open:
            raise ValidationError("A part of the form has two Content-Disposition headers")
        if isinstance(part, _FilePart) and len(self.files) == self._max_files:
            raise PayloadTooLargeError(f"There are more than {self._max_files} files: send them as one archive")
        self._open = part
        self._silent = 0

    def hear(self) -> None:
        """Notes that bytes belong to a part."""
        self._silent = 0

    def end(self) -> None:
        """Notes that the part ends."""
        self._open = None
        self._silent = 0

    def _parse(self, piece: bytes) -> None:
        if self._discarded:
            raise ValidationError("The upload was broken off")
        self._silent += len(piece)
        self._tail = (self._tail + piece)[-_TAIL:]
        try:
            self._parser.data_received(piece)
        except (PlatformError, OSError):
            raise
        except Exception as exc:  # its own, and whatever Python's email package makes of a stranger's headers
            field = getattr(exc, "part_name", None)
            what = f"has the unknown field '{field}'" if field else f"cannot be read: {exc}"
            raise ValidationError(
                f"The form {what} (its fields are {', '.join((*TEXT_FIELDS, *FILE_FIELDS))}): {HOW}"
            ) from exc
        if self._silent > _MAX_SILENT + _PIECE:
            raise ValidationError(f"The form has more than {_MAX_SILENT} bytes of headers, or behind its end")


class _Part:
    """A field of the form, as the parser speaks to it; it may come several times, one after another."""

    def __init__(self, intake: FormIntake, field: str) -> None:
        self._intake = intake
        self._field = field
        self._filename: str | None = None

    def set_multipart_filename(self, filename: str | None) -> None:
        self._filename = filename

    def set_multipart_content_type(self, content_type: str) -> None:
        """Says nothing that the bytes do not say better."""

    def close(self) -> None:
        """Lets go of what is open."""

    def start(self) -> None:
        self._intake.begin(self)
        self.on_start()

    def data_received(self, chunk: bytes) -> None:
        self._intake.hear()
        self.on_data(chunk)

    def finish(self) -> None:
        self.on_finish()
        self._intake.end()

    def on_start(self) -> None:
        raise NotImplementedError

    def on_data(self, chunk: bytes) -> None:
        raise NotImplementedError

    def on_finish(self) -> None:
        raise NotImplementedError


class _FilePart(_Part):
    """Writes each file below the intake's folder."""

    _file: BinaryIO | None = None
    _path = ""

    def on_start(self) -> None:
        if not self._filename:
            raise ValidationError(f"The field '{self._field}' takes files, not text, and each has a name: {HOW}")
        self._path = checked_path(self._filename)
        self._file = new_file(self._intake.folder, self._path)
        self._intake.files[self._path] = 0

    def on_data(self, chunk: bytes) -> None:
        assert self._file is not None
        self._file.write(chunk)
        self._intake.files[self._path] += len(chunk)

    def on_finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()


class _TextPart(_Part):
    """Keeps a short text."""

    _value = b""

    def on_start(self) -> None:
        if self._field in self._intake.fields:
            raise ValidationError(f"The field '{self._field}' is there twice")

    def on_data(self, chunk: bytes) -> None:
        self._value += chunk
        if len(self._value) > _MAX_TEXT:
            raise PayloadTooLargeError(f"The field '{self._field}' is longer than {_MAX_TEXT} bytes")

    def on_finish(self) -> None:
        try:
            self._intake.fields[self._field] = self._value.decode()
        except UnicodeDecodeError as exc:
            raise ValidationError(f"The field '{self._field}' is not UTF-8") from exc


def too_large(max_bytes: int) -> PayloadTooLargeError:
    """Returns the error for a body that is larger than allowed."""
    return PayloadTooLargeError(
        f"The upload is larger than {max_bytes} bytes (AIML_MAX_UPLOAD_GB)", details={"max_bytes": max_bytes}
    )


def _parser(content_type: str) -> tuple[Any, bytes]:
    # Here, not above: the library imports those of three cloud vendors, which take half a second.
    library = importlib.import_module("streaming_form_data.parser")
    headers = {"Content-Type": content_type}
    try:
        boundary: bytes = library.parse_content_boundary(headers)
        if len(boundary) > _MAX_BOUNDARY:
            raise ValueError("its boundary is too long")
        return library.StreamingFormDataParser(headers, strict=True), boundary
    except (library.ParseFailedException, ValueError, LookupError) as exc:
        raise ValidationError(f"The header Content-Type of the form cannot be read ({exc}): {HOW}") from exc
