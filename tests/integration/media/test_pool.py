"""The decoder pool: what comes out of it, who waits for it, and how its processes begin and end."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.core.errors import (
    DrainingError,
    InvalidInputError,
    QueueFullError,
)
from src.core.memory import private_memory
from src.core.settings_sections import MediaSettings
from src.media.content import content_of
from src.media.decoded import DecodedAudio, DecodedDocument, DecodedImage, DecodedVideo
from src.media.pool import DecoderPool
from tests.decoder_pools import PIXELS, PNG, Make, pids, still_works
from tests.service import is_alive, wait_until
from tests.unit.media import faults
from tests.unit.media.media_files import (
    pdf,
    picture,
    shades,
    tone,
    video,
    wav,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import asyncio, sys
from src.media.pool import DecoderPool
from src.core.settings_sections import MediaSettings
from tests.unit.media import faults

async def main():
    pool = DecoderPool(MediaSettings(decode_timeout=600), modules=(faults.__name__,))
    decoding = asyncio.create_task(pool.decode("image", faults.file(sys.argv[1])))
    while not pool.state()["confined_by"]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    print(*(process.pid for process in pool._busy), flush=True)
    await decoding

asyncio.run(main())
"""


async def test_every_kind_comes_through_as_arrays(pool: DecoderPool) -> None:
    image = await pool.decode("image", PNG)
    assert isinstance(image, DecodedImage)
    assert np.array_equal(image.pixels, PIXELS)
    audio = await pool.decode("audio", wav(tone(8000), 8000))
    assert isinstance(audio, DecodedAudio)
    assert np.array_equal(audio.samples, tone(8000))
    film = await pool.decode("video", video(shades(20)), num_frames=4)
    assert isinstance(film, DecodedVideo)
    assert film.frames.shape == (4, 48, 64, 3)
    document = await pool.decode("document", pdf([[(72, 700, 12, "words")]]), dpi=36)
    assert isinstance(document, DecodedDocument)
    assert document.pages[0].words == ("words",)
    assert document.pages[0].boxes.shape == (1, 4)
    assert all(array.flags.writeable for array in (image.pixels, audio.samples, film.frames))


async def test_nothing_is_started_before_the_first_decoding() -> None:
    idle = DecoderPool(MediaSettings())
    assert idle.state()["processes"] == 0
    with pytest.raises(InvalidInputError, match="empty"):
        await idle.decode("image", b"")
    assert idle.state()["processes"] == 0
    await idle.close()


async def test_one_process_serves_many_jobs(make: Make) -> None:
    pool = make()
    await pool.decode("image", PNG)
    before = pids(pool)
    for _ in range(20):
        assert await still_works(pool)
    assert pids(pool) == before


async def test_a_content_is_decoded_where_it_lies_and_left_to_its_owner(pool: DecoderPool, tmp_path: Path) -> None:
    with content_of(PNG, "data.image") as content:
        for _ in range(2):
            found = await pool.decode("image", content)
            assert isinstance(found, DecodedImage)
        assert content.read() == PNG


async def test_more_than_may_wait_are_turned_away_at_once(make: Make) -> None:
    pool = make(max_waiting=2, decode_timeout=600)
    held = [asyncio.create_task(pool.decode("image", faults.file("hang"))) for _ in range(3)]
    await until(lambda: pool.state()["busy"] == 1 and pool.state()["waiting"] == 2)
    with pytest.raises(QueueFullError, match="2 inputs wait") as caught:
        await pool.decode("image", PNG)
    assert caught.value.retryable
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert await still_works(pool)


async def test_a_decoding_that_nobody_waits_for_ends_soon(make: Make) -> None:
    pool = make(decode_timeout=600)
    assert await still_works(pool)
    (pid,) = pids(pool)
    decoding = asyncio.create_task(pool.decode("image", faults.file("hang")))
    await until(lambda: pool.state()["busy"] == 1)
    await asyncio.sleep(0.1)
    decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    await until(lambda: not is_alive(pid))
    assert await still_works(pool)


async def test_a_short_decoding_that_nobody_waits_for_does_not_cost_its_process(make: Make) -> None:
    pool = make()
    assert await still_works(pool)
    before = pids(pool)
    decoding = asyncio.create_task(pool.decode("image", faults.file("hang 0.2")))
    await until(lambda: pool.state()["busy"] == 1)
    await asyncio.sleep(0.05)
    decoding.cancel()
    assert await still_works(pool)
    assert pids(pool) == before


async def test_cancelling_what_waits_takes_nobody_elses_turn(make: Make) -> None:
    pool = make()
    first = asyncio.create_task(pool.decode("image", faults.file("hang 0.5")))
    await until(lambda: pool.state()["busy"] == 1)
    others = [asyncio.create_task(pool.decode("image", PNG)) for _ in range(4)]
    await until(lambda: pool.state()["waiting"] == 4)
    others[1].cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["DecodedImage"] * 2 + ["CancelledError"] + [
        "DecodedImage"
    ] * 2
    assert pool.state()["waiting"] == 0


async def test_idle_processes_end_after_a_while(make: Make) -> None:
    pool = make(workers=2, idle_seconds=0.3)
    await asyncio.gather(*(pool.decode("image", PNG) for _ in range(2)))
    before = pids(pool)
    assert len(before) == 2
    await until(lambda: pool.state()["processes"] == 0 and not any(map(is_alive, before)))
    assert await still_works(pool)


async def test_closing_ends_processes_and_fails_what_they_do(make: Make) -> None:
    pool = make(decode_timeout=600)
    assert await still_works(pool)
    before = pids(pool)
    decoding = asyncio.create_task(pool.decode("image", faults.file("hang")))
    waiting = asyncio.create_task(pool.decode("image", PNG))
    await until(lambda: pool.state()["busy"] == 1 and pool.state()["waiting"] == 1)
    await pool.close()
    for task in (decoding, waiting):
        with pytest.raises(DrainingError):
            await task
    assert not any(map(is_alive, before))
    with pytest.raises(DrainingError):
        await pool.decode("image", PNG)


@pytest.mark.parametrize("fault", ["hang", "spin"])
def test_a_process_dies_with_the_service(fault: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, fault],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid), 10, "the decoder process to end with its parent")


def test_importing_the_layer_imports_no_codec() -> None:
    script = (
        "import src.media.loader, sys; "
        "print({name.partition('.')[0] for name in sys.modules} & {'av', 'PIL', 'numpy', 'pypdfium2', 'soxr', 'torch'})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


async def test_what_a_decoding_costs(make: Make, figure: Callable[[str], None]) -> None:
    pool = make()
    begin = time.monotonic()
    await pool.decode("image", PNG)
    figure(f"first decoding, its process started: {time.monotonic() - begin:.2f} s")
    for name, kind, data, wanted in [
        ("a small PNG", "image", PNG, {}),
        (
            "a 12-megapixel JPEG",
            "image",
            picture(np.mgrid[0:3000, 0:4000][1].astype(np.uint8)[..., None].repeat(3, 2), "JPEG"),
            {},
        ),
        ("a minute of 44.1 kHz WAV to 16 kHz", "audio", wav(tone(44_100, 60), 44_100), {"rate": 16_000}),
        ("8 of 250 frames, 640 x 480 h264", "video", video(shades(250, 480, 640)), {}),
        ("a PDF page at 150 dpi", "document", pdf([[(72, 700, 12, "words and more words")]]), {}),
    ]:
        begin = time.monotonic()
        await pool.decode(kind, data, **wanted)
        figure(f"{name}: {1000 * (time.monotonic() - begin):.1f} ms")
    memory = private_memory(pids(pool)[0])
    figure(f"private memory of the idle process: {(memory or 0) / 1e6:.0f} MB")
