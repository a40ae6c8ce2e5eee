"""Media files that tests make: pictures, sound, video and documents, whole and hostile."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def noise(height: int = 20, width: int = 30, seed: int = 0) -> Pixels:
    """Returns a picture that no other one is like."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(pixels: Pixels | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Returns a picture as a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that tells of a size and holds next to nothing."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", data) + _chunk(b"IDAT", zlib.compress(bytes(100))) + _chunk(b"IEND", b"")
    )


def png_bomb(width: int, height: int) -> bytes:
    """Returns a PNG whose few bytes really become that many pixels."""
    packer, rows = zlib.compressobj(9), bytes(width * 3 + 1) * 100
    body = b"".join(packer.compress(rows) for _ in range(height // 100)) + packer.flush()
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", data) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tone(rate: int, seconds: float = 1.0, pitch: float = 440.0) -> NDArray[np.float32]:
    """Returns a sine of half the full range."""
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def wav(samples: NDArray[Any], rate: int) -> bytes:
    """Returns samples (length, or length x channels; int16, int32, uint8, float32 or float64) as a WAV."""
    values = samples if samples.ndim == 2 else samples[:, None]
    code, width = (3 if values.dtype.kind == "f" else 1), values.dtype.itemsize
    channels = values.shape[1]
    form = struct.pack("<HHIIHH", code, channels, rate, rate * width * channels, width * channels, width * 8)
    body = np.ascontiguousarray(values).tobytes()
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16)
    return head + form + struct.pack("<4sI", b"data", len(body)) + body


def sound(samples: NDArray[np.float32], rate: int, container: str, codec: str, *, layout: str = "stereo") -> bytes:
    """Returns samples (one channel, put into all of the layout's) as a file of a codec."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        channels = len(context.layout.channels)
        frame = av.AudioFrame.from_ndarray(np.stack([samples] * channels), "fltp", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(context.format.name, layout, rate, frame_size=context.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def flac_of_silence(seconds: float, *, told: bool = True) -> bytes:
    """Returns a FLAC of so much silence at 8 kHz, in a few bytes; `told`: whether its header says how long it is.

    Source: RFC 9639, frames of one constant subframe.
    """
    block, rate = 32768, 8000
    count = int(seconds * rate / block) + 1
    packed = (rate << 44) | (0 << 41) | (15 << 36) | (count * block if told else 0)
    info = struct.pack(">HH6x", block, block) + packed.to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(count):
        header = b"\xff\xf8" + bytes([0xF4, 0x08]) + _utf8_number(number)
        header += bytes([_crc(header, 8, 0x07)])
        frame = header + b"\x00\x00\x00"
        frames.append(frame + struct.pack(">H", _crc(frame, 16, 0x8005)))
    return b"fLaC\x80" + len(info).to_bytes(3, "big") + info + b"".join(frames)


def _utf8_number(number: int) -> bytes:
    return chr(number).encode() if not 0xD800 <= number < 0xE000 else chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
    return value


def shades(count: int, height: int = 48, width: int = 64) -> list[Pixels]:
    """Returns frames that grow brighter one by one, so that each of 51 is told by its mean: 5 times its place."""
    return [np.full((height, width, 3), 5 * (place % 51), np.uint8) for place in range(count)]


def video(
    frames: Sequence[Pixels],
    container: str = "mp4",
    codec: str = "libx264",
    *,
    rate: int = 25,
    group: int = 12,
) -> bytes:
    """Returns frames as a video, `group` of them between two that can be begun with."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options={"x265-params": "log-level=none"} if "265" in codec else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = group
        for pixels in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def box(data: bytes, name: bytes) -> int:
    """Returns where the content of the first box of a name begins, in an mp4."""
    return data.index(name) + 4


def index_first(data: bytes) -> bytes:
    """Returns an mp4 with its index before the pictures, as it is written for the web."""
    start = data.index(b"moov") - 4
    head, media, index = data[: data.index(b"mdat") - 4], data[data.index(b"mdat") - 4 : start], data[start:]
    place = box(index, b"stco") + 4
    (count,) = struct.unpack_from(">I", index, place)
    offsets = struct.unpack_from(f">{count}I", index, place + 4)
    return head + patched(index, place + 4, struct.pack(f">{count}I", *(o + len(index) for o in offsets))) + media


def patched(data: bytes, place: int, value: bytes) -> bytes:
    """Returns data with a value written over what is at a place."""
    return data[:place] + value + data[place + len(value) :]


def slowed(data: bytes, times: int) -> bytes:
    """Returns an mp4 whose header spreads its frames over so many times their real length, and cuts nothing away."""
    data = patched(data, data.index(b"edts"), b"free")
    place = box(data, b"stts") + 12
    (step,) = struct.unpack_from(">I", data, place)
    return patched(data, place, struct.pack(">I", step * times))


def told(data: bytes, seconds: float) -> bytes:
    """Returns a webm whose header tells of another length than it has."""
    return patched(data, data.index(b"\x44\x89\x88") + 3, struct.pack(">d", seconds * 1000))


Line = tuple[float, float, float, str]
"""Left, bottom (points from the page's lower left), size, text."""


def pdf(
    pages: Sequence[Sequence[Line]],
    *,
    size: tuple[int, int] = (612, 792),
    extra: str = "",
    catalog: str = "",
    trailer: str = "",
    objects: Sequence[bytes] = (),
    content: bytes | None = None,
    content_facts: str = "",
) -> bytes:
    """Returns a PDF of lines of Helvetica; `extra` goes into every page, `objects` are appended from number 1000 on."""
    written: dict[int, bytes] = {3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"}
    kids = []
    for place, lines in enumerate(pages):
        number = 10 + 2 * place
        kids.append(f"{number} 0 R")
        text = "".join(f"BT /F1 {points} Tf {x} {y} Td ({words}) Tj ET\n" for x, y, points, words in lines).encode()
        body = content if content is not None else text
        written[number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {number + 1} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> {extra} >>"
        ).encode()
        facts = f"<< /Length {len(body)} {content_facts} >>".encode()
        written[number + 1] = facts + b"\nstream\n" + body + b"\nendstream"
    written[1] = f"<< /Type /Catalog /Pages 2 0 R {catalog} >>".encode()
    written[2] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    written |= {1000 + place: body for place, body in enumerate(objects)}
    return _pdf_file(written, trailer)


def _pdf_file(written: dict[int, bytes], trailer: str) -> bytes:
    out, places = bytearray(b"%PDF-1.7\n"), {}
    for number in sorted(written):
        places[number] = len(out)
        out += f"{number} 0 obj\n".encode() + written[number] + b"\nendobj\n"
    start, top = len(out), max(written) + 1
    out += f"xref\n0 {top}\n0000000000 65535 f \n".encode()
    for number in range(1, top):
        out += f"{places[number]:010} 00000 n \n".encode() if number in places else b"0000000000 65535 f \n"
    out += f"trailer\n<< /Size {top} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def encrypted_pdf() -> bytes:
    """Returns a PDF that opens with no password that anybody knows."""
    words = "ab" * 32
    encrypt = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{words}> /U <{words}> /P -4 >> /ID [<{words}> <{words}>]"
    return pdf([[(72, 700, 12, "secret")]], trailer=encrypt)


def tiff(pages: Sequence[Pixels]) -> bytes:
    """Returns a TIFF of several pages."""
    first, *others = (Image.fromarray(page) for page in pages)
    return picture(first, "TIFF", save_all=True, append_images=others)
