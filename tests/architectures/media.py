"""Pictures, sounds, clips and pages from seeds, and how a request carries them without losing a bit."""

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sound:
    """`pcm`: int16, one channel."""

    pcm: NDArray[np.int16]
    rate: int

    @property
    def samples(self) -> NDArray[np.float32]:
        """What a decoder makes of it: float32, -1 to 1."""
        return self.pcm.astype(np.float32) / 32768


@dataclass(frozen=True)
class Clip:
    """`frames`: n x height x width x 3, RGB; height and width even."""

    frames: Pixels
    fps: int = 8


@dataclass(frozen=True)
class Document:
    """Pages as pictures, which travel as PNG (one page) or TIFF (several)."""

    pages: Sequence[Pixels]


def picture(seed: int, width: int = 64, height: int = 64) -> Pixels:
    """Returns coloured shapes on a coloured ground with some noise."""
    draws = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(int(v) for v in draws.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        left, top = int(draws.integers(0, width * 3 // 4)), int(draws.integers(0, height * 3 // 4))
        right, bottom = left + width // 3, top + height // 3
        pen.ellipse((left, top, right, bottom), fill=tuple(int(v) for v in draws.integers(0, 256, 3)))
    noisy = np.asarray(image, dtype=np.int16) + draws.integers(-20, 21, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def page(text: str, width: int = 256, height: int = 256) -> Pixels:
    """Returns black words on white."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).multiline_text((8, 8), text, fill="black")
    return np.asarray(image)


def clip(seed: int, frames: int = 8, width: int = 64, height: int = 64) -> Clip:
    """Returns unlike frames."""
    return Clip(np.stack([picture(1000 * seed + number, width, height) for number in range(frames)]))


def sound(seed: int, seconds: float = 1.0, rate: int = 16000) -> Sound:
    """Returns three tones that come and go, with some noise."""
    draws = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    wave_form = draws.normal(0, 0.02, time.size)
    for _ in range(3):
        pitch, swell, phase = draws.uniform(150, 3000), draws.uniform(1, 6), draws.uniform(0, 6)
        wave_form += 0.2 * np.sin(2 * np.pi * pitch * time) * np.sin(2 * np.pi * swell * time + phase) ** 2
    return Sound((np.clip(wave_form, -1, 1) * 32767).astype(np.int16), rate)


def as_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a request's `data`: arrays and sounds as data URIs, all else as it is."""
    return {name: _encoded(value) for name, value in data.items()}


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _uri("image/png", _picture_file([value], "PNG"))
    if isinstance(value, Sound):
        return _uri("audio/wav", _wav(value))
    if isinstance(value, Clip):
        return _uri("video/x-matroska", lossless_video(value))
    if isinstance(value, Document):
        kind = "PNG" if len(value.pages) == 1 else "TIFF"
        return _uri(f"image/{kind.lower()}", _picture_file(value.pages, kind))
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value


def lossless_video(shown: Clip) -> bytes:
    """Returns a Matroska file with FFV1 frames in RGB."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=shown.fps)
        stream.width, stream.height, stream.pix_fmt = shown.frames.shape[2], shown.frames.shape[1], "bgr0"
        for frame in shown.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _picture_file(pictures: Sequence[Pixels], kind: str) -> bytes:
    file = io.BytesIO()
    first, *rest = (Image.fromarray(item) for item in pictures)
    first.save(file, kind, **({"save_all": True, "append_images": rest} if rest else {}))
    return file.getvalue()


def _wav(heard: Sound) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(heard.rate)
        writer.writeframes(heard.pcm.astype("<i2").tobytes())
    return file.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
