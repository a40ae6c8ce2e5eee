"""The form of `POST /inference/infer/upload`: one JSON part `request`, and files under the names of their fields."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from src.api.forms import Form, Matches, Part
from src.api.infer_body import checked, decode
from src.core.errors import InvalidInputError, PayloadTooLargeError, PlatformError, ValidationError
from src.core.settings_sections import MediaSettings
from src.inference.models.base import MediaField
from src.inference.types import JsonObject
from src.media.inputs import UploadedFile
from src.media.problems import too_many_bytes

REQUEST = "request"
HOW = (
    'curl -F \'request={"task":"vlm","engine":"transformers","model_name":"demo-vlm","data":{"prompt":"…"}};'
    "type=application/json' -F image=@photo.jpg …"
)
_LIST = "[]"
_HEADERS = 1_000_000  # bytes for what stands between the files
_LONGEST_NAME = 200

MediaOf = Callable[[str, str, str], Mapping[str, MediaField]]
"""Task, engine, model name → the media fields of their handler; raises a `PlatformError` where there is none."""


def max_form_bytes(settings: MediaSettings, max_body: int) -> int:
    """Returns how many bytes a form may have: all of its files, the JSON part, and what stands between them."""
    return settings.max_inputs * _max_file_bytes(settings) + max_body + _HEADERS


class InferForm(Form[JsonObject]):
    """One such form; it results in the body of a request, with `UploadedFile`s where the files belong.

    What is wrong is told as early as it can be known: by the JSON part, in whatever place it comes. `max_body`
    bounds that part, in bytes.
    """

    how = HOW
    setting = "media.max_mb x media.max_inputs"

    def __init__(
        self, content_type: str, folder: Path, settings: MediaSettings, *, max_body: int, media_of: MediaOf
    ) -> None:
        self.body: JsonObject | None = None
        self.settings = settings
        self.max_body = max_body
        self._media_of = media_of
        self._media: Mapping[str, MediaField] = {}
        self._files: dict[str, list[UploadedFile]] = {}
        self._lists: set[str] = set()
        super().__init__(content_type, folder, max_bytes=max_form_bytes(settings, max_body))

    def parts(self) -> Iterable[tuple[str, Part, Matches | None]]:
        """Returns the one part that takes every name: which ones are right depends on the task."""
        part = _Part(self)
        yield "", part, part.called

    def take_request(self, data: bytes) -> None:
        """Takes the JSON part, and looks at the files that are there already."""
        value = decode(data, f"the part '{REQUEST}'")
        self.body = checked({"data": {}, **value} if isinstance(value, dict) else value, f"the part '{REQUEST}'")
        self._media = self._media_of(self.body["task"], self.body["engine"], self.body["model_name"])
        for field in self._files:
            self._check_field(field)

    def new_file(self, name: str, filename: str) -> tuple[BinaryIO, str]:
        """Opens a file for a part; returns the field that it fills too."""
        field = name.removesuffix(_LIST)
        count = sum(map(len, self._files.values()))
        if count == self.settings.max_inputs:
            raise PayloadTooLargeError(
                f"There are more than {count} files (media.max_inputs)",
                details={"setting": "media.max_inputs", "limit": count},
            )
        if self.body is not None:
            self._check_field(field)
        path = self.folder / str(count)
        self._files.setdefault(field, []).append(UploadedFile(path, filename[:_LONGEST_NAME]))
        if field != name:
            self._lists.add(field)
        return open(path, "xb"), field

    def too_large_file(self, field: str, size: int) -> PayloadTooLargeError | None:
        """Returns the error for a file that has grown to `size` bytes, where that is too much for its field."""
        media = self._media.get(field)
        bound = self.settings.max_bytes(media.kind) if media else _max_file_bytes(self.settings)
        if size <= bound:
            return None
        return too_many_bytes(media.kind if media else "file", f"data.{field}", None, bound)

    def result(self) -> JsonObject:
        """Returns the body of the request."""
        if self.body is None:
            raise ValidationError(f"The form has no part '{REQUEST}': {HOW}")
        for field, files in self._files.items():
            self._check_count(field, len(files))
        given = {field: files if self._is_list(field) else files[0] for field, files in self._files.items()}
        return {**self.body, "data": {**self.body["data"], **given}}

    def _is_list(self, field: str) -> bool:
        return field in self._lists or len(self._files[field]) > 1

    def _check_field(self, field: str) -> None:
        assert self.body is not None
        if field not in self._media:
            task = self.body["task"]
            known = f"takes files under {_names(self._media)}" if self._media else "takes no files"
            raise InvalidInputError(
                f"'{_short(field)}' is no media field of task '{task}', which {known}",
                details={"field": _short(field), "media_fields": sorted(self._media)},
            )
        if self.body["data"].get(field) is not None:
            raise InvalidInputError(
                f"`data.{field}` is there twice: as a file, and in 'data' of the part '{REQUEST}'; leave one out",
                details={"field": f"data.{field}"},
            )

    def _check_count(self, field: str, count: int) -> None:
        media = self._media[field]
        # Documents may be pages of one.
        if count > 1 and not media.many and media.kind != "document":
            raise InvalidInputError(
                f"`data.{field}` takes one file, and {count} came", details={"field": f"data.{field}", "files": count}
            )


class _Part(Part):
    """The part that comes next, whatever it is called."""

    form: InferForm
    _SEPARATE: ClassVar[str] = f"what is no file belongs into the JSON of the part '{REQUEST}'"

    def __init__(self, form: InferForm) -> None:
        super().__init__(form)
        self._name = self._field = ""
        self._text: bytearray | None = None  # of the JSON part, from its beginning on
        self._file: BinaryIO | None = None
        self._size = 0

    def called(self, registered: str, name: str) -> bool:
        """Hears the name of a part that begins."""
        self._name = name
        return True

    def on_start(self) -> None:
        self._size = 0
        if self._name == REQUEST:
            if self._text is not None:
                raise ValidationError(f"The part '{REQUEST}' is there twice")
            self._text = bytearray()
        elif self.filename is None:
            raise InvalidInputError(f"The part '{_short(self._name)}' is no file: {self._SEPARATE}")
        else:
            self._file, self._field = self.form.new_file(self._name, self.filename)

    def on_data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._file is not None:
            error: PlatformError | None = self.form.too_large_file(self._field, self._size)
            if error is not None:
                raise error
            self._file.write(chunk)
        elif self._text is not None:
            if self._size > self.form.max_body:
                raise PayloadTooLargeError(
                    f"The part '{REQUEST}' is larger than {self.form.max_body} bytes (AIML_MAX_BODY_MB)"
                )
            self._text += chunk

    def on_finish(self) -> None:
        if self._file is not None:
            self.close()
        elif self._text is not None and self._name == REQUEST:
            self.form.take_request(bytes(self._text))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _max_file_bytes(settings: MediaSettings) -> int:
    return max(settings.max_bytes("image"), settings.max_bytes("video"))


def _names(media: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(media))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
