"""How worker processes come to be: forked from the preloader, or started afresh."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from src.core.errors import PlatformError, WorkerDiedError
from src.inference.workers.launching import Launcher
from src.inference.workers.process import ProcessWorker
from tests.light_engines import obedient_spec
from tests.service import is_alive
from tests.waiting import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.xdist_group("torch"),
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only"),
]

MODULES = ["torch", "no_such_module"]


async def loaded(
    launcher: Launcher,
    modules: Sequence[str] = MODULES,
    on_death: Callable[[PlatformError], None] = lambda error: None,
) -> ProcessWorker:
    worker = ProcessWorker(lambda end: launcher.launch(end, modules), start_timeout=120, load_timeout=120)
    await worker.load(obedient_spec(), on_death)
    return worker


async def ask(worker: ProcessWorker, do: str, **more: object) -> object:
    async with asyncio.timeout(30):
        return (await worker.infer({"do": do, **more}, {})).result["response"]


@pytest.fixture(scope="module")
async def launcher() -> AsyncIterator[Launcher]:
    """A launcher whose preloader has torch."""
    found = Launcher("auto")
    yield found
    await found.preloader.stop()


@pytest.fixture(scope="module")
async def forked(launcher: Launcher) -> AsyncIterator[ProcessWorker]:
    worker = await loaded(launcher)
    yield worker
    await worker.unload()


async def test_a_worker_is_forked_from_the_preloader(launcher: Launcher, forked: ProcessWorker) -> None:
    assert launcher.preloader.state == "ready"
    assert await ask(forked, "parent") == launcher.preloader.pid


async def test_a_forked_worker_computes_in_parallel(forked: ProcessWorker) -> None:
    assert await ask(forked, "multiply", size=700) == 700.0


async def test_siblings_draw_different_numbers(launcher: Launcher, forked: ProcessWorker) -> None:
    sibling = await loaded(launcher)
    ours, theirs = await ask(forked, "draw"), await ask(sibling, "draw")
    await sibling.unload()
    assert isinstance(ours, list)
    assert isinstance(theirs, list)
    assert all(a != b for a, b in zip(ours, theirs, strict=True))


async def test_many_workers_at_once(launcher: Launcher) -> None:
    workers = await asyncio.gather(*(loaded(launcher) for _ in range(4)))
    assert len({worker.pid for worker in workers}) == 4
    assert await asyncio.gather(*(ask(worker, "echo", say=n) for n, worker in enumerate(workers))) == [0, 1, 2, 3]
    await asyncio.gather(*(worker.unload() for worker in workers))
    assert not any(is_alive(worker.pid) for worker in workers)


async def test_a_killed_worker_is_told_with_its_signal(launcher: Launcher, forked: ProcessWorker) -> None:
    deaths: list[PlatformError] = []
    worker = await loaded(launcher, on_death=deaths.append)
    os.kill(worker.pid, signal.SIGKILL)
    await until(lambda: bool(deaths))
    assert [type(death) for death in deaths] == [WorkerDiedError]
    assert "9" in str(await worker.post_mortem())
    assert await ask(forked, "echo", say="still here") == "still here"


async def test_workers_end_with_the_preloader_and_the_next_start_works() -> None:
    launcher = Launcher("auto")
    deaths: list[PlatformError] = []
    worker = await loaded(launcher, on_death=deaths.append)
    preloader = launcher.preloader.pid
    assert preloader is not None
    os.kill(preloader, signal.SIGKILL)
    await until(lambda: bool(deaths) and not is_alive(worker.pid))
    again = await loaded(launcher)
    assert await ask(again, "echo", say="back") == "back"
    await again.unload()
    await launcher.preloader.stop()


async def test_stopping_leaves_no_process() -> None:
    launcher = Launcher("auto")
    launcher.warm(MODULES)
    preloader = launcher.preloader.pid
    assert preloader is not None
    await launcher.preloader.stop()
    assert launcher.preloader.state == "off"
    await until(lambda: not is_alive(preloader))


@pytest.mark.parametrize(("preload", "modules"), [("never", MODULES), ("auto", [])])
async def test_without_a_preloader_a_worker_is_our_own_child(preload: str, modules: list[str]) -> None:
    launcher = Launcher(preload)
    worker = await loaded(launcher, modules)
    assert await ask(worker, "parent") == os.getpid()
    assert launcher.preloader.state == "off"
    await worker.unload()
