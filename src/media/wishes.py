"""What a caller may ask of a decoding, checked before any decoder starts."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from src.core.errors import InvalidInputError
from src.core.settings_sections import MediaSettings


@dataclass(frozen=True, slots=True)
class ImageWishes:
    """Nothing can be asked of an image: it comes as it is."""

    def check(self, settings: MediaSettings) -> None:
        """Passes."""


@dataclass(frozen=True, slots=True)
class AudioWishes:
    """`rate`: samples per second of the answer; None: the audio's own."""

    rate: int | None = None

    def check(self, settings: MediaSettings) -> None:
        """Raises `InvalidInputError` for a rate that no model has."""
        if self.rate is not None and not 1000 <= self.rate <= 384_000:
            raise _refused("rate", self.rate, "1000 to 384000 samples per second")


@dataclass(frozen=True, slots=True)
class VideoWishes:
    """Which frames: `num_frames` spread evenly, or `fps` per second (with both: `num_frames` at most).

    Neither: 8 spread evenly. A video that has fewer frames gives all that it has.
    """

    num_frames: int | None = None
    fps: float | None = None

    def check(self, settings: MediaSettings) -> None:
        """Raises `InvalidInputError` for more frames than `media.max_video_frames`."""
        most = settings.max_video_frames
        if self.num_frames is not None and not 1 <= self.num_frames <= most:
            raise _refused("num_frames", self.num_frames, f"1 to {most} (media.max_video_frames)")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise _refused("fps", self.fps, "more than 0 and at most 1000 frames per second")


@dataclass(frozen=True, slots=True)
class DocumentWishes:
    """`pages`: which ones, counted from 0 (None: all); `dpi`: of the page images; `images`, `words`: whether to."""

    pages: tuple[int, ...] | None = None
    dpi: float = 150.0
    images: bool = True
    words: bool = True

    def check(self, settings: MediaSettings) -> None:
        """Raises `InvalidInputError` for pages or a resolution that cannot be."""
        if not 18 <= self.dpi <= 600:
            raise _refused("dpi", self.dpi, "18 to 600")
        if self.pages is not None and (not self.pages or min(self.pages) < 0):
            raise _refused("pages", list(self.pages), "a list of page numbers, the first page is 0")


Wishes = ImageWishes | AudioWishes | VideoWishes | DocumentWishes

_KINDS: dict[str, type[Wishes]] = {
    "image": ImageWishes,
    "audio": AudioWishes,
    "video": VideoWishes,
    "document": DocumentWishes,
}


def wishes_for(kind: str, wanted: dict[str, Any], settings: MediaSettings) -> Wishes:
    """Returns the checked wishes for a kind of media; raises `InvalidInputError`, or TypeError for an unknown name."""
    if kind == "document" and wanted.get("pages") is not None:
        wanted = {**wanted, "pages": tuple(wanted["pages"])}
    wishes = _KINDS[kind](**wanted)
    wishes.check(settings)
    return wishes


def as_json(wishes: Wishes) -> dict[str, Any]:
    """Returns wishes as they travel to a decoder process."""
    return asdict(wishes)


def from_json(kind: str, values: dict[str, Any]) -> Wishes:
    """Returns the wishes that travelled."""
    known = {field.name for field in fields(_KINDS[kind])}
    pages = {"pages": tuple(values["pages"])} if values.get("pages") is not None else {}
    return _KINDS[kind](**{name: value for name, value in values.items() if name in known} | pages)


def _refused(name: str, value: Any, allowed: str) -> InvalidInputError:
    return InvalidInputError(f"`{name}` is {value}; it may be {allowed}", details={"option": name, "value": value})
