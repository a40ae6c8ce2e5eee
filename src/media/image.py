"""Images to RGB. Runs inside decoder processes, on strangers' bytes; and on the images of a Python caller."""

import warnings
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, ImageOps
from PIL.ExifTags import Base as ExifTag

from src.media.job import Answer, Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
}
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def prepare() -> None:
    """Makes a decoder process ready; a caller's own process is left as it is."""
    Image.MAX_IMAGE_PIXELS = None  # the bound is ours, and is checked before anything is decoded
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.init()


def decode(job: Job) -> Answer:
    """Returns the first (or only) picture as one array; see `DecodedImage`."""
    with open_image(job) as image:
        return [read_pixels(image, job)], {}


def open_image(job: Job) -> Image.Image:
    """Returns an image of which only the header was read, within the bounds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is not used
            image = Image.open(job.source, formats=[FORMATS[job.type]])
    except Exception as exc:
        raise job.invalid(f"begins like that, but cannot be read: {_words(exc)}") from exc
    job.check_pixels(*image.size)
    return image


def read_pixels(image: Image.Image, job: Job) -> "NDArray[np.uint8]":
    """Decodes the frame that an image is at; raises `InvalidInputError` where it is damaged or cut off."""
    job.check_pixels(*image.size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except MemoryError:
        raise
    except Exception as exc:
        raise job.invalid(f"is damaged or cut off: {_words(exc)}") from exc
    try:
        return pixels(image)
    except ValueError as exc:
        raise job.invalid(f"cannot be used: {exc}") from exc


def pixels(image: Image.Image) -> "NDArray[np.uint8]":
    """Returns a picture as uint8, height x width x 3: upright by its EXIF orientation, alpha laid on white."""
    import numpy as np

    array: NDArray[np.uint8] = np.asarray(rgb(_upright(image)), np.uint8)
    return array


def rgb(image: Image.Image) -> Image.Image:
    """Returns an image in mode RGB: alpha laid on white, 16 bits and more scaled to 8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _on_white(image)
    if image.mode in (*_SIXTEEN_BITS, "I", "F"):
        return _eight_bits(image).convert("RGB")
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        return _eight_bits(image).convert("RGB")  # grey with one transparent shade
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return canvas


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.asarray(image)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("some of its pixels are not numbers")
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
        return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))
    # Pillow keeps 16-bit grey as 16 or 32 bits; a 32-bit one with small values is 8-bit already.
    shift = 8 if values.dtype.itemsize == 2 or values.max(initial=0) > 255 else 0
    return Image.fromarray((values.clip(0, 65535) >> shift).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ExifTag.Orientation, 1)
            if orientation == 1:
                return image
            return ImageOps.exif_transpose(image)
    except Exception:
        return image  # damaged metadata says nothing about the picture


def _words(exc: Exception) -> str:
    """Returns what Pillow says, without the addresses of our objects."""
    text = str(exc)
    return "its header is damaged" if "<" in text or not text else text
