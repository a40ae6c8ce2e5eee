"""The form by which users hand in files of a model or a dataset: files with their paths, and two texts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from src.api.forms import Form, Matches, Part
from src.core.errors import PayloadTooLargeError, PlatformError, ValidationError
from src.core.sources.file_names import checked_path, new_file

HOW = "curl -F name=my-model -F files=@model.safetensors -F files=@config.json …"
FILE_FIELDS = ("files", "file")
TEXT_FIELDS = ("name", "description")

_MAX_TEXT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived: path → size in bytes of each file, and field → text."""

    files: dict[str, int]
    fields: dict[str, str]

    @property
    def name(self) -> str | None:
        """The name that the caller gave; None where it was left out."""
        return self.fields.get("name") or None


class FormIntake(Form[Received]):
    """One such form on its way to disk."""

    how = HOW
    setting = "AIML_MAX_UPLOAD_GB"

    def __init__(self, content_type: str, folder: Path, *, max_bytes: int, max_files: int) -> None:
        self.files: dict[str, int] = {}
        self.fields: dict[str, str] = {}
        self.max_files = max_files
        super().__init__(content_type, folder, max_bytes=max_bytes)

    def parts(self) -> Iterable[tuple[str, Part, Matches | None]]:
        """Returns a part for each field."""
        for name in FILE_FIELDS:
            yield name, _FilePart(self, name), None
        for name in TEXT_FIELDS:
            yield name, _TextPart(self, name), None

    def result(self) -> Received:
        """Returns what arrived; raises `ValidationError` where it holds no file."""
        if not self.files:
            raise ValidationError(f"There is no file in the field 'files': {HOW}")
        return Received(self.files, self.fields)

    def unknown(self, field: str) -> PlatformError:
        """Returns the error for a field that does not exist."""
        known = ", ".join((*TEXT_FIELDS, *FILE_FIELDS))
        return ValidationError(f"The form has the unknown field '{field}' (its fields are {known}): {HOW}")


class _FilePart(Part):
    """Writes each file below the intake's folder."""

    form: FormIntake
    _file: BinaryIO | None = None
    _path = ""

    def __init__(self, form: FormIntake, field: str) -> None:
        super().__init__(form)
        self._field = field

    def on_start(self) -> None:
        if len(self.form.files) == self.form.max_files:
            raise PayloadTooLargeError(f"There are more than {self.form.max_files} files: send them as one archive")
        if not self.filename:
            raise ValidationError(f"The field '{self._field}' takes files, not text, and each has a name: {HOW}")
        self._path = checked_path(self.filename)
        self._file = new_file(self.form.folder, self._path)
        self.form.files[self._path] = 0

    def on_data(self, chunk: bytes) -> None:
        assert self._file is not None
        self._file.write(chunk)
        self.form.files[self._path] += len(chunk)

    def on_finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()


class _TextPart(Part):
    """Keeps a short text."""

    form: FormIntake

    def __init__(self, form: FormIntake, field: str) -> None:
        super().__init__(form)
        self._field = field
        self._value = b""

    def on_start(self) -> None:
        if self._field in self.form.fields:
            raise ValidationError(f"The field '{self._field}' is there twice")

    def on_data(self, chunk: bytes) -> None:
        self._value += chunk
        if len(self._value) > _MAX_TEXT:
            raise PayloadTooLargeError(f"The field '{self._field}' is longer than {_MAX_TEXT} bytes")

    def on_finish(self) -> None:
        try:
            self.form.fields[self._field] = self._value.decode()
        except UnicodeDecodeError as exc:
            raise ValidationError(f"The field '{self._field}' is not UTF-8") from exc
