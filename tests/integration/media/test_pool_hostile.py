"""Hostile files, in the decoder pool: refused, and nobody else notices."""

import zlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from src.core.errors import (
    InvalidInputError,
    PayloadTooLargeError,
)
from src.core.memory import private_memory
from src.core.settings_sections import MediaSettings
from src.media.pool import DecoderPool
from tests.decoder_pools import PIXELS, PNG, Make, pids, still_works
from tests.unit.media.hostile_files import FILES
from tests.unit.media.media_files import (
    noise,
    pdf,
    picture,
    png_bomb,
    shades,
    tiff,
    tone,
    video,
    wav,
)

pytestmark = pytest.mark.anyio


def _deflated_pdf() -> bytes:
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(b" " * 10_000_000) for _ in range(60)) + packer.flush()
    return pdf([[]], content=body, content_facts="/Filter /FlateDecode")


def _image_bomb_in_a_pdf() -> bytes:
    facts = "/Type /XObject /Subtype /Image /Width 60000 /Height 60000 /ColorSpace /DeviceRGB /BitsPerComponent 8"
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(10_000_000)) for _ in range(60)) + packer.flush()
    image = f"<< {facts} /Filter /FlateDecode /Length {len(body)} >>\nstream\n".encode() + body + b"\nendstream"
    data = pdf([[]], content=b"q 600 0 0 700 0 0 cm /Im Do Q", objects=[image])
    return data.replace(b"/Font << /F1 3 0 R >>", b"/XObject << /Im 1000 0 R >>")


@pytest.fixture(scope="module")
async def small() -> AsyncIterator[DecoderPool]:
    """A pool whose processes may take little memory."""
    pool = DecoderPool(MediaSettings(workers=1, memory_mb=256))
    yield pool
    await pool.close()


@pytest.mark.parametrize("name", list(FILES))
async def test_a_hostile_file_is_refused_and_costs_no_process(small: DecoderPool, name: str) -> None:
    file = FILES[name]
    with pytest.raises((InvalidInputError, PayloadTooLargeError), match=f"`data.{file.kind}`") as caught:
        await small.decode(file.kind, file.make(), field=f"data.{file.kind}")
    assert caught.value.details["detected"] == file.detected
    assert caught.value.details["accepted"]
    assert await still_works(small)
    assert small.state()["lost"] == 0


@pytest.mark.parametrize(
    "make_it",
    [_deflated_pdf, _image_bomb_in_a_pdf, lambda: tiff([noise(10, 10)] * 200), lambda: png_bomb(9_400, 9_400)],
)
async def test_what_unpacks_to_a_lot_keeps_within_the_memory_it_may_take(make: Make, make_it: Any) -> None:
    pool = make(memory_mb=256)
    kind = "image" if make_it().startswith(b"\x89PNG") else "document"
    try:
        await pool.decode(kind, make_it(), dpi=36) if kind == "document" else await pool.decode(kind, make_it())
    except (InvalidInputError, PayloadTooLargeError):
        pass  # either way it is over, and nobody else noticed
    assert await still_works(pool)
    memory = private_memory(pids(pool)[0])
    assert memory is not None
    assert memory < 400_000_000


async def test_files_of_random_bytes_behind_every_beginning_are_refused(pool: DecoderPool) -> None:
    random = np.random.default_rng(5)
    beginnings = {
        "image": [PNG[:40], picture(PIXELS, "JPEG")[:100], picture(PIXELS, "WEBP")[:16], b"GIF89a", b"II*\0"],
        "audio": [wav(tone(8000), 8000)[:44], b"ID3\x04", b"fLaC", b"OggS", b"\xff\xf1"],
        "video": [video(shades(3))[:200], b"\x1aE\xdf\xa3", b"RIFF\0\0\0\0AVI "],
        "document": [b"%PDF-1.7\n", b"MM\0*"],
    }
    for kind, starts in beginnings.items():
        for start in starts:
            body = random.integers(0, 256, 5000, np.uint8).tobytes()
            with pytest.raises((InvalidInputError, PayloadTooLargeError), match=f"`{kind}`"):
                await pool.decode(kind, start + body, field=kind)
    assert await still_works(pool)
