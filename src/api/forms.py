"""Parses a multipart form piece by piece, off the event loop; what its parts mean is up to a subclass.

The parser is `streaming-form-data`. It holds the GIL while it looks for a boundary, so it gets small pieces.
What it does not bound (headers, what follows the end) is bounded here, and its own targets are not used:
they trust file names, and the one for several files mistakes the content type for the name (2.1).
"""

import importlib
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from src.core.errors import PayloadTooLargeError, PlatformError, ValidationError
from src.core.sources.full_disk import full_disk_told

_PIECE = 64 * 1024  # bytes parsed at once
_MAX_SILENT = 64 * 1024  # bytes in a row that belong to no part: headers, or what follows the end
_MAX_BOUNDARY = 200
_TAIL = 4096

T = TypeVar("T")
Matches = Callable[[str, str], bool]
"""Whether a part, registered under the first name, is meant by the second."""


class Form(ABC, Generic[T]):
    """One form on its way to `folder`, which is made; its methods block, and one thread at a time is let in.

    `max_bytes` bounds the body as a whole. A subclass offers the parts, and makes of them what `finish` returns.
    """

    how: ClassVar[str]
    """How to send such a form, as its errors say."""
    setting: ClassVar[str]
    """What sets the bound of the body, as its errors say."""

    def __init__(self, content_type: str, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._open: Part | None = None
        self._discarded = False
        self._body = self._silent = 0
        self._tail = b""
        self._parser, boundary = _parser(content_type, self.how)
        self._end = b"--" + boundary + b"--"
        for name, part, matches in self.parts():
            self._parser.register(name, part, matches)
        with full_disk_told():
            folder.mkdir(parents=True)

    @abstractmethod
    def parts(self) -> Iterable[tuple[str, "Part", Matches | None]]:
        """Returns the parts that may come, with their names; called once."""

    @abstractmethod
    def result(self) -> T:
        """Returns what arrived, once all of it has; raises a `PlatformError` where something is missing."""

    def unknown(self, field: str) -> PlatformError:
        """Returns the error for a part that is none of those."""
        return ValidationError(f"The form has the unknown field '{field}': {self.how}")

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the body."""
        with self._lock, full_disk_told():
            self._body += len(data)
            if self._body > self.max_bytes:
                raise self.too_large()
            for start in range(0, len(data), _PIECE):
                self._parse(data[start : start + _PIECE])

    def finish(self) -> T:
        """Returns what arrived; raises `ValidationError` where the body is cut off, and what `result` raises."""
        with self._lock:
            if self._open or self._end not in self._tail:
                raise ValidationError(f"The form ends in the middle: send all of it, as in {self.how}")
            return self.result()

    def discard(self) -> None:
        """Removes everything, once a write under way has ended; nothing is written afterwards."""
        with self._lock:
            self._discarded = True
            if self._open:
                self._open.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def too_large(self) -> PayloadTooLargeError:
        """Returns the error for a body that is larger than allowed."""
        return PayloadTooLargeError(
            f"The upload is larger than {self.max_bytes} bytes ({self.setting})", details={"max_bytes": self.max_bytes}
        )

    def begin(self, part: "Part") -> None:
        """Notes that a part begins."""
        if self._open:
            raise ValidationError("A part of the form has two Content-Disposition headers")
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
            if field:
                raise self.unknown(field) from exc
            raise ValidationError(f"The form cannot be read: {exc}: {self.how}") from exc
        if self._silent > _MAX_SILENT + _PIECE:
            raise ValidationError(f"The form has more than {_MAX_SILENT} bytes of headers, or behind its end")


class Part:
    """A field of the form, as the parser speaks to it; it may come several times, one after another."""

    def __init__(self, form: Form[Any]) -> None:
        self.form = form
        self.filename: str | None = None

    def set_multipart_filename(self, filename: str | None) -> None:
        self.filename = filename

    def set_multipart_content_type(self, content_type: str) -> None:
        """Says nothing that the bytes do not say better."""

    def close(self) -> None:
        """Lets go of what is open."""

    def start(self) -> None:
        self.form.begin(self)
        self.on_start()

    def data_received(self, chunk: bytes) -> None:
        self.form.hear()
        self.on_data(chunk)

    def finish(self) -> None:
        self.on_finish()
        self.form.end()

    def on_start(self) -> None:
        raise NotImplementedError

    def on_data(self, chunk: bytes) -> None:
        raise NotImplementedError

    def on_finish(self) -> None:
        raise NotImplementedError


def _parser(content_type: str, how: str) -> tuple[Any, bytes]:
    # Here, not above: the library imports those of three cloud vendors, which take half a second.
    library = importlib.import_module("streaming_form_data.parser")
    headers = {"Content-Type": content_type}
    try:
        boundary: bytes = library.parse_content_boundary(headers)
        if len(boundary) > _MAX_BOUNDARY:
            raise ValueError("its boundary is too long")
        return library.StreamingFormDataParser(headers, strict=True), boundary
    except (library.ParseFailedException, ValueError, LookupError) as exc:
        raise ValidationError(f"The header Content-Type of the form cannot be read ({exc}): {how}") from exc
