"""What comes out of the decoders: arrays with the facts that belong to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays = Sequence[Any]
"""The arrays of one answer, in the order in which its decoder wrote them."""
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels`: uint8, height x width x 3 (RGB), upright, without alpha."""

    pixels: "NDArray[np.uint8]"
    type: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """`samples`: float32, one channel, about -1 to 1, at `rate` per second; `seconds`: how long it is."""

    samples: "NDArray[np.float32]"
    rate: int
    seconds: float
    original_rate: int
    channels: int
    type: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """`frames`: uint8, n x height x width x 3 (RGB), upright; `timestamps`: seconds from the start, one for each.

    `indices`: the place of each among the video's `total_frames`; `fps` and `duration` (seconds) are those of
    the video, counted from what is really in it.
    """

    frames: "NDArray[np.uint8]"
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    total_frames: int
    fps: float
    duration: float
    type: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `number` counts from 0; `image`: uint8, height x width x 3 (RGB), None where not asked for.

    `words` are those of its text layer, in its order; `boxes`: int32, n x 4 (left, top, right, bottom), where
    the page as it is seen spans 0 to 1000 both ways. `has_text`: whether there is a text layer at all; None
    where words were not asked for.
    """

    number: int
    image: "NDArray[np.uint8] | None"
    words: tuple[str, ...]
    boxes: "NDArray[np.int32]"
    has_text: bool | None


@dataclass(frozen=True, slots=True)
class DecodedDocument:
    """`pages`: those asked for; `page_count`: how many there are; `dpi`: of the images, None for a picture's own."""

    pages: tuple[Page, ...]
    page_count: int
    dpi: float | None
    type: str
    warnings: tuple[str, ...] = field(default=())


Decoded = DecodedImage | DecodedAudio | DecodedVideo | DecodedDocument


def as_data(decoded: Decoded) -> dict[str, Any]:
    """Returns what was decoded as a plain object of its fields, warnings left out, which can go to another process.

    A document's pages are such objects too.
    """
    fields = {name: getattr(decoded, name) for name in decoded.__slots__ if name != "warnings"}
    if isinstance(decoded, DecodedDocument):
        fields["pages"] = [{name: getattr(page, name) for name in page.__slots__} for page in decoded.pages]
    return fields


def assemble(kind: str, arrays: Arrays, facts: Facts) -> Decoded:
    """Returns a decoder's answer as its type; raises ValueError, TypeError or LookupError where it is none."""
    if not isinstance(facts, Mapping):
        raise TypeError("the facts are no object")
    shared: dict[str, Any] = {"type": str(facts["type"]), "warnings": tuple(map(str, facts["warnings"]))}
    if kind == "image":
        return DecodedImage(pixels=_checked(arrays[0], "u1", (None, None, 3)), **shared)
    if kind == "audio":
        return _audio(arrays, facts, shared)
    if kind == "video":
        return _video(arrays, facts, shared)
    return _document(arrays, facts, shared)


def _audio(arrays: Arrays, facts: Facts, shared: dict[str, Any]) -> DecodedAudio:
    return DecodedAudio(
        samples=_checked(arrays[0], "f4", (None,)),
        rate=int(facts["rate"]),
        seconds=float(facts["seconds"]),
        original_rate=int(facts["original_rate"]),
        channels=int(facts["channels"]),
        **shared,
    )


def _video(arrays: Arrays, facts: Facts, shared: dict[str, Any]) -> DecodedVideo:
    return DecodedVideo(
        frames=_checked(arrays[0], "u1", (None, None, None, 3)),
        timestamps=tuple(map(float, facts["timestamps"])),
        indices=tuple(map(int, facts["indices"])),
        total_frames=int(facts["total_frames"]),
        fps=float(facts["fps"]),
        duration=float(facts["duration"]),
        **shared,
    )


def _document(arrays: Arrays, facts: Facts, shared: dict[str, Any]) -> DecodedDocument:
    pages = []
    for page in facts["pages"]:
        image = None if page["image"] is None else _checked(arrays[page["image"]], "u1", (None, None, 3))
        words, boxes = tuple(map(str, page["words"])), _checked(arrays[page["boxes"]], "i4", (None, 4))
        pages.append(Page(int(page["number"]), image, words, boxes, page["has_text"]))
    dpi = None if facts["dpi"] is None else float(facts["dpi"])
    return DecodedDocument(tuple(pages), int(facts["page_count"]), dpi, **shared)


def _checked(array: Any, dtype: str, shape: tuple[int | None, ...]) -> Any:
    """Returns an array of that type and shape (None: any length); a process may write what it likes."""
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.str[1:] != dtype:
        raise ValueError(f"an array of {array.dtype.str} {array.shape} is not what was asked for")
    return array
