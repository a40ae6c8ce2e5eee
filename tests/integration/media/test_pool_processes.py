"""Decoder processes are confined, and one that fails fails its own job."""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from src.core.errors import (
    EngineError,
    InsufficientMemoryError,
    InvalidInputError,
    PayloadTooLargeError,
    PlatformError,
)
from src.core.memory import private_memory
from src.core.settings_sections import MediaSettings
from src.media.decoded import DecodedImage
from src.media.pool import DecoderPool
from tests.decoder_pools import PNG, Make, environment_of, pids, status_of, still_works
from tests.service import is_alive
from tests.unit.media import faults
from tests.unit.media.media_files import (
    noise,
    picture,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sys.platform != "linux", reason="what confines a decoder process is Linux's")
@pytest.mark.parametrize("attempt", ["socket", "read", "write", "run", "fork", "signal", "remove"])
async def test_a_decoder_process_has_no_network_files_programs_or_other_processes(
    pool: DecoderPool, attempt: str
) -> None:
    found = await pool.decode("image", faults.file(f"attempt {attempt}"))
    assert found.warnings == ("PermissionError",)
    assert os.access(faults.__file__, os.R_OK)


async def test_what_holds_is_told(pool: DecoderPool) -> None:
    assert await still_works(pool)
    holds = pool.state()["confined_by"]
    assert set(holds) == {"memory", "network", "files"}
    if sys.platform == "linux":
        assert holds["network"] in ("seccomp", "namespace")
        assert holds["memory"] == "rlimit"


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
async def test_a_decoder_process_has_one_thread_when_it_confines_itself(make: Make) -> None:
    pool = make()
    await pool.decode("image", PNG)
    assert b"Threads:\t1\n" in status_of(pids(pool)[0])


async def test_the_environment_with_its_secrets_stays_outside(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_API_KEYS", "secret")
    pool = make()
    await pool.decode("image", PNG)
    assert b"AIML_API_KEYS" not in environment_of(pids(pool)[0])


@pytest.mark.parametrize(
    ("fault", "kind", "problem"),
    [
        ("crash", InvalidInputError, r"`image` \(image/png\) cannot be decoded: its decoder crashed on it \(SIGABRT"),
        ("segfault", InvalidInputError, r"crashed on it \(SIGSEGV"),
        ("leave", InvalidInputError, r"crashed on it \(exit status 3: the library gave up\)"),
        ("fail no reason", InvalidInputError, r"cannot be decoded: no reason; as an image this takes jpeg, png"),
        ("eat", PayloadTooLargeError, r"needs more than 128 MB to decode \(media.memory_mb\)"),
    ],
)
async def test_a_process_that_fails_fails_its_own_request_and_the_next_one_is_served(
    make: Make, fault: str, kind: type[PlatformError], problem: str
) -> None:
    pool = make(memory_mb=128)
    with pytest.raises(kind, match=problem) as caught:
        await pool.decode("image", faults.file(fault), field="image")
    assert caught.value.details["field"] == "image"
    assert caught.value.details["detected"] == "image/png"
    assert "image/jpeg" in caught.value.details["accepted"]
    assert await still_works(pool)


@pytest.mark.parametrize("rubbish", faults.RUBBISH)
async def test_a_process_that_talks_rubbish_fails_its_own_request_and_is_not_kept(make: Make, rubbish: str) -> None:
    pool = make()
    assert await still_works(pool)
    before, open_before = pids(pool), len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidInputError, match=r"`image` \(image/png\) cannot be decoded: its decoder") as caught:
        await pool.decode("image", faults.file(f"say {rubbish}"), field="image")
    assert caught.value.details["detected"] == "image/png"
    assert not is_alive(before[0])
    assert await still_works(pool)
    del caught  # the error's frames hold what was mapped
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= open_before


async def test_arrays_of_another_shape_than_asked_for_are_refused(make: Make) -> None:
    pool = make()
    with pytest.raises(InvalidInputError, match="an array of <f4"):
        await pool.decode("image", faults.file("misfit"))
    assert await still_works(pool)


@pytest.mark.skipif(sys.platform != "linux", reason="what confines a decoder process is Linux's")
async def test_a_process_cannot_become_many(pool: DecoderPool) -> None:
    found = await pool.decode("image", faults.file("multiply"))
    assert found.warnings == ("1000 of 1000 forks were refused",)


async def test_a_long_log_costs_the_service_no_memory(make: Make) -> None:
    pool = make(memory_mb=64)
    before = private_memory(os.getpid()) or 0
    with pytest.raises(InvalidInputError, match="SIGABRT: garbage"):
        await pool.decode("image", faults.file("shout 60"))
    assert (private_memory(os.getpid()) or 0) < before + 30_000_000


@pytest.mark.parametrize("fault", ["hang", "spin"])
async def test_a_process_that_hangs_ends_with_the_time(make: Make, fault: str) -> None:
    pool = make(decode_timeout=1)
    assert await still_works(pool)
    before = pids(pool)
    with pytest.raises(InvalidInputError, match=r"could not be decoded within 1 s \(media.decode_timeout\)"):
        await pool.decode("image", faults.file(fault))
    assert not is_alive(before[0])
    assert await still_works(pool)


async def test_a_process_that_the_system_ended_is_not_blamed_on_the_input(make: Make) -> None:
    pool = make()
    decoding = asyncio.create_task(pool.decode("image", faults.file("hang"), field="image"))
    await until(lambda: bool(pool.state()["confined_by"]))
    os.kill(pids(pool)[0], signal.SIGKILL)
    with pytest.raises(InsufficientMemoryError, match="`image`"):
        await decoding
    assert await still_works(pool)


async def test_an_idle_process_that_was_ended_is_noticed_before_it_gets_a_job(make: Make) -> None:
    pool = make()
    assert await still_works(pool)
    os.kill(pids(pool)[0], signal.SIGKILL)
    await until(lambda: all(process.ended for _, process in pool._idle))
    assert await still_works(pool)


async def test_neighbours_of_a_failing_process_are_not_disturbed(make: Make) -> None:
    pool = make(workers=2, decode_timeout=20)
    faulty = ["crash", "fail x", "crash", "eat", "leave"]
    work = [pool.decode("image", faults.file(fault)) for fault in faulty]
    work += [pool.decode("image", picture(noise(seed=seed))) for seed in range(10)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(result, PlatformError) for result in results[:5])
    for seed, result in enumerate(results[5:]):
        assert isinstance(result, DecodedImage)
        assert np.array_equal(result.pixels, noise(seed=seed))


@pytest.mark.slow
async def test_a_hundred_crashes_later_it_still_decodes(make: Make, figure: Callable[[str], None]) -> None:
    pool = make(workers=2)
    begin = time.monotonic()
    work = [pool.decode("image", faults.file("crash")) for _ in range(60)]
    results = await asyncio.gather(*work, return_exceptions=True)
    work = [pool.decode("image", faults.file("crash")) for _ in range(40)]
    results += await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(result, InvalidInputError) for result in results)
    assert await still_works(pool)
    assert len(os.listdir("/proc/self/fd")) < 100
    figure(f"a hundred crashing decodings: {time.monotonic() - begin:.1f} s")


async def test_a_module_that_is_not_there_is_told_as_such() -> None:
    broken = DecoderPool(MediaSettings(), modules=("no.such.module",))
    with pytest.raises(EngineError, match=r"does not start: exit status 1: ModuleNotFoundError: No module named 'no'"):
        await broken.decode("image", PNG)
    await broken.close()
