"""What the tests of the decoder pool look at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.media.decoded import DecodedImage
from src.media.pool import DecoderPool
from tests.unit.media.media_files import noise, picture

PIXELS = noise()
PNG = picture(PIXELS)

Make = Callable[..., DecoderPool]


def pids(pool: DecoderPool) -> list[int]:
    """Returns the processes of a pool."""
    return [process.pid for process in [*(process for _, process in pool._idle), *pool._busy]]


def environment_of(pid: int) -> bytes:
    """Returns the environment that a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def status_of(pid: int) -> bytes:
    """Returns what the kernel tells about a process."""
    return Path(f"/proc/{pid}/status").read_bytes()


async def still_works(pool: DecoderPool) -> bool:
    """Whether a pool decodes."""
    found = await pool.decode("image", PNG)
    return isinstance(found, DecodedImage) and np.array_equal(found.pixels, PIXELS)
