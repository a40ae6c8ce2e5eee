"""Media that a Python caller has decoded already: objects of Pillow and numpy (and whatever numpy can read).

They are the caller's own, so they are not sent through a decoder process, but for sound, which may have to be
brought to another rate: it goes there as a WAV of float32.
"""

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.settings_sections import MediaSettings
from src.media.decoded import Decoded, DecodedDocument, DecodedImage, DecodedVideo, Page
from src.media.sampling import DEFAULT_FRAMES, by_rate, evenly
from src.media.wishes import DocumentWishes, VideoWishes, Wishes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TYPE = "object"
"""What `type` says of media that came as an object."""
_ASSUMED_FPS = 24.0
_SAMPLES = ("array", "raw", "samples")
_RATES = ("sampling_rate", "sample_rate", "rate")


def taken(value: Any, kind: str, field: str, wishes: Wishes, settings: MediaSettings) -> Decoded | bytes | None:
    """Returns an object decoded, sound as the bytes of a WAV, or None for what is no such object.

    image: a PIL image; an array, height x width (x 1, 3 or 4) or channels first, uint8 or 0 to 1.
    audio: `{"array": samples, "sampling_rate": n}` (or `raw`), or `(samples, n)`; one channel, or channels in
    either order. video: a list of pictures; an array, frames x height x width x 3; `{"frames": …, "fps": n}`.
    document: a picture, or a list of pictures.
    Raises `InvalidInputError` for an object that is none of these, `PayloadTooLargeError` past a bound.
    """
    takers: dict[str, Callable[..., Decoded | bytes | None]] = {
        "image": _image,
        "audio": _audio,
        "video": _video,
        "document": _document,
    }
    return takers[kind](value, field, wishes, settings)


def is_picture(value: Any) -> bool:
    """Whether an object is a picture: of Pillow, or something that numpy reads as an array."""
    return _is_pillow(value) or (hasattr(value, "__array__") and not isinstance(value, memoryview))


def _is_pillow(value: Any) -> bool:
    # Without an import: whoever hands one over has imported it.
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def _image(value: Any, field: str, _: Wishes, settings: MediaSettings) -> DecodedImage | None:
    return DecodedImage(_pixels(value, field, settings), TYPE) if is_picture(value) else None


def _pixels(value: Any, field: str, settings: MediaSettings) -> "NDArray[np.uint8]":
    from src.media import image

    picture = value if _is_pillow(value) else _pillow(value, field)
    width, height = picture.size
    if not width * height:
        raise _refused(field, f"is a picture of {width} x {height} pixels: there is nothing in it")
    if width * height > settings.max_pixels:
        raise _too_large(field, f"{width * height:,} pixels", "max_pixels", settings.max_pixels)
    try:
        return image.pixels(picture)
    except (OSError, ValueError, SyntaxError) as exc:
        raise _refused(field, f"is a picture that cannot be read: {exc}") from exc


def _pillow(value: Any, field: str) -> Any:
    import numpy as np
    from PIL import Image

    array = _array(value, field)
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise _refused(field, f"is an array of shape {array.shape}; a picture is height x width x 1, 3 or 4")
    return Image.fromarray(np.ascontiguousarray(_eight_bits(array, field)))


def _eight_bits(array: Any, field: str) -> Any:
    import numpy as np

    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    values = _finite(array, field)
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > 255:
        raise _refused(field, f"holds values from {low:g} to {high:g}; a picture is uint8, or holds 0 to 1")
    scale = 255.0 if array.dtype.kind == "f" and high <= 1 else 1.0
    return (values * scale).round().astype(np.uint8)


def _audio(value: Any, field: str, _: Wishes, settings: MediaSettings) -> bytes | None:
    if isinstance(value, Mapping) and any(name in value for name in _SAMPLES):
        samples = next(value[name] for name in _SAMPLES if name in value)
        rate = next((value[name] for name in _RATES if name in value), None)
    elif isinstance(value, tuple) and len(value) == 2:
        samples, rate = value
    elif hasattr(value, "__array__") and not isinstance(value, memoryview):
        samples, rate = value, None
    else:
        return None
    if rate is None or isinstance(rate, bool) or not 1000 <= float(rate) <= 384_000:
        raise _refused(field, 'needs its rate: {"array": samples, "sampling_rate": 16000}')
    return _wav(_channels(samples, field), int(rate), field, settings)


def _channels(samples: Any, field: str) -> "NDArray[np.float32]":
    """Returns samples as float32, length x channels."""
    import numpy as np

    array = _array(samples, field)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise _refused(field, f"is an array of shape {array.shape}; sound is samples, or channels x samples")
    if array.shape[0] < array.shape[1]:
        array = array.T
    # Whole numbers span the range of their type.
    scale = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max) + 1
    return np.ascontiguousarray(_finite(array, field) / scale, np.float32)


def _wav(samples: "NDArray[np.float32]", rate: int, field: str, settings: MediaSettings) -> bytes:
    length, channels = samples.shape
    if length > settings.max_audio_seconds * rate:
        raise _too_large(field, f"{length / rate:,.0f} s", "max_audio_seconds", settings.max_audio_seconds)
    if channels > 64:
        raise _refused(field, f"has {channels} channels")
    ieee_float, bytes_per_frame = 3, channels * 4
    head = struct.pack("<HHIIHH", ieee_float, channels, rate, rate * bytes_per_frame, bytes_per_frame, 32)
    size = samples.nbytes
    header = (
        struct.pack("<4sI4s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16) + head + struct.pack("<4sI", b"data", size)
    )
    return header + samples.tobytes()


def _video(value: Any, field: str, wishes: Wishes, settings: MediaSettings) -> DecodedVideo | None:
    assert isinstance(wishes, VideoWishes)
    told = None
    if isinstance(value, Mapping) and "frames" in value:
        value, told = value["frames"], value.get("fps")
    if not _is_sequence_of_pictures(value):
        return None
    if len(value) == 0:
        raise _refused(field, "holds no picture: not one frame")
    fps = float(told or _ASSUMED_FPS)
    times = [place / fps for place in range(len(value))]
    wanted = _chosen(times, wishes, field, settings)
    warnings = () if told else (f"`{field}` came as frames without `fps`: {_ASSUMED_FPS:g} per second are assumed",)
    return DecodedVideo(
        frames=_stacked([value[place] for place in wanted], field, settings),
        timestamps=tuple(times[place] for place in wanted),
        indices=tuple(wanted),
        total_frames=len(value),
        fps=fps,
        duration=len(value) / fps,
        type=TYPE,
        warnings=warnings,
    )


def _is_sequence_of_pictures(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(is_picture, value))
    return hasattr(value, "__array__") and not _is_pillow(value) and len(getattr(value, "shape", ())) == 4


def _chosen(times: list[float], wishes: VideoWishes, field: str, settings: MediaSettings) -> list[int]:
    most = settings.max_video_frames
    if wishes.fps is None:
        return evenly(len(times), min(wishes.num_frames or DEFAULT_FRAMES, most))
    places = by_rate(times, wishes.fps)
    if wishes.num_frames is not None:
        return [places[place] for place in evenly(len(places), wishes.num_frames)]
    if len(places) > most:
        raise _too_large(field, f"{len(places)} frames", "max_video_frames", most)
    return places


def _stacked(pictures: list[Any], field: str, settings: MediaSettings) -> "NDArray[np.uint8]":
    import numpy as np

    arrays = [_pixels(picture, field, settings) for picture in pictures]
    if len({array.shape for array in arrays}) > 1:
        raise _refused(field, "holds frames of different sizes")
    if (together := sum(array.size // 3 for array in arrays)) > settings.max_pixels:
        raise _too_large(field, f"{together:,} pixels", "max_pixels", settings.max_pixels)
    return np.stack(arrays)


def _document(value: Any, field: str, wishes: Wishes, settings: MediaSettings) -> DecodedDocument | None:
    import numpy as np

    assert isinstance(wishes, DocumentWishes)
    pictures = value if isinstance(value, list | tuple) else [value]
    if not pictures or not all(map(is_picture, pictures)):
        return None
    numbers = range(len(pictures)) if wishes.pages is None else wishes.pages
    if max(numbers) >= len(pictures):
        raise _refused(field, f"has {len(pictures)} pages, from 0 on: there is no page {max(numbers)}")
    if len(numbers) > settings.max_pdf_pages:
        raise _too_large(field, f"{len(numbers)} pages", "max_pdf_pages", settings.max_pdf_pages)
    has_text = False if wishes.words else None
    pages = []
    for number in numbers:
        image = _pixels(pictures[number], field, settings)
        pages.append(Page(number, image if wishes.images else None, (), np.zeros((0, 4), np.int32), has_text))
    return DecodedDocument(tuple(pages), len(pictures), None, TYPE)


def _array(value: Any, field: str) -> Any:
    import numpy as np

    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as exc:
        raise _refused(field, f"is no array: {exc}") from exc
    if array.dtype.kind not in "buif":
        raise _refused(field, f"is an array of {array.dtype}, not of numbers")
    return array


def _finite(array: Any, field: str) -> Any:
    import numpy as np

    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise _refused(field, "holds values that are not numbers (NaN or infinite)")
    return values


def _refused(field: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"`{field}` {problem}", details={"field": field})


def _too_large(field: str, what: str, setting: str, bound: float) -> PayloadTooLargeError:
    text = f"`{field}` has {what}; at most {bound:,.10g} are taken (media.{setting})"
    return PayloadTooLargeError(text, details={"field": field, "setting": f"media.{setting}", "limit": bound})
