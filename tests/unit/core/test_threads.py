"""Blocking work in threads: values, errors, a loop that stays free, an interpreter that can end."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.core.threads import in_background, in_thread

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
HANGING = """
import asyncio, time
from src.core.threads import in_background, in_thread

async def main():
    in_background(lambda: time.sleep(600), lambda: None)
    try:
        await asyncio.wait_for(in_thread(lambda: time.sleep(600)), 0.1)
    except TimeoutError:
        print("gave up")

asyncio.run(main())
"""
AT_EXIT = """
import asyncio, atexit
from src.core.threads import in_thread

atexit.register(lambda: print(asyncio.run(in_thread(lambda: "done at exit"))))
"""


def fail() -> None:
    raise OSError("disk full")


def end() -> None:
    raise SystemExit("enough")


async def test_the_value_comes_back() -> None:
    assert await in_thread(lambda: 6 * 7) == 42


@pytest.mark.parametrize(("work", "kind"), [(fail, OSError), (end, SystemExit)])
async def test_an_error_comes_back(work: object, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        await in_thread(work)  # type: ignore[arg-type]


async def test_the_work_runs_in_a_daemon_thread_of_its_own() -> None:
    thread = await in_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon


async def test_the_loop_stays_free() -> None:
    release = threading.Event()
    work = asyncio.create_task(in_thread(lambda: release.wait(10)))
    await asyncio.sleep(0.05)
    assert not work.done()
    release.set()
    assert await work is True


async def test_many_at_once_do_not_wait_for_each_other() -> None:
    barrier = threading.Barrier(40)
    await asyncio.gather(*(in_thread(lambda: barrier.wait(10)) for _ in range(40)))


async def test_who_gives_up_is_not_told_any_more() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert ended.wait(10)
    await asyncio.sleep(0.05)


def test_an_answer_after_the_loop_has_ended_is_dropped_in_silence() -> None:
    release = threading.Event()
    ended: list[threading.Thread] = []

    async def give_up() -> None:
        def work() -> None:
            ended.append(threading.current_thread())
            release.wait(10)

        task = asyncio.create_task(in_thread(work))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(give_up())
    release.set()
    ended[0].join(10)  # pytest would fail the test for an exception in the thread
    assert not ended[0].is_alive()


@pytest.mark.parametrize("work", [lambda: None, fail])
def test_background_work_tells_when_it_is_done(work: object) -> None:
    done = threading.Event()
    in_background(work, done.set)  # type: ignore[arg-type]
    assert done.wait(10)


def test_a_failure_in_the_background_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    with caplog.at_level(logging.WARNING, "src.core.threads"):
        in_background(fail, done.set)
        assert done.wait(10)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


def test_background_work_keeps_nobody_waiting() -> None:
    release = threading.Event()
    started = time.monotonic()
    in_background(lambda: release.wait(30), lambda: None)
    assert time.monotonic() - started < 10
    release.set()


@pytest.mark.parametrize(("script", "says"), [(HANGING, "gave up"), (AT_EXIT, "done at exit")])
def test_an_interpreter_can_end(script: str, says: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, says), done.stderr
