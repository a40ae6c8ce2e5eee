"""W7: upload of 2 GB to the embedded store, against one read, sha256, write and fsync pass; what else it costs."""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.bench import Bench, Unit

MB = 1_000_000
SHAPES = {"one_file_of_2_gb": (2000 * MB,), "four_files_of_500_mb": (500 * MB,) * 4}
ROUNDS = 3
_CHUNK = 1024 * 1024
_NAP = 0.005  # seconds


def units(bench: Bench) -> list[Unit]:
    """Returns one for each shape of a model."""

    def unit(name: str, sizes: tuple[int, ...]) -> Unit:
        def run() -> dict[str, Any]:
            found = measure(bench.folder / "w7", sizes)
            return {**found, "ratios": ratios(found)}

        return Unit(f"ours, {name.replace('_', ' ')}", 60, run)

    return [unit(name, sizes) for name, sizes in SHAPES.items()]


def ratios(shape: dict[str, float]) -> dict[str, float]:
    """Returns the speed of an upload to that of the pass, and a second upload's time to that of a first."""
    return {
        "upload_speed_to_pass": shape["upload_to_pass"],
        "second_upload_to_first": shape["second_upload_seconds"] / shape["upload_seconds"],
    }


def measure(folder: Path, sizes: tuple[int, ...], rounds: int = ROUNDS) -> dict[str, float]:
    """Uploads files of the given sizes below `folder`, which is removed afterwards.

    Returns medians, and of memory the worst. Pass and upload take turns, each with nothing else left to be
    written to disk: the disk's speed drifts, and it is the ratio within a turn that counts.
    """
    source = _planted(folder / "source", sizes)
    turns = [_turn(folder, source, turn) for turn in range(rounds)]
    shutil.rmtree(folder)
    worst = max(turn["peak_memory_growth_mb"] for turn in turns)
    return {name: median(turn[name] for turn in turns) for name in turns[0]} | {"peak_memory_growth_mb": worst}


def _turn(folder: Path, source: Path, turn: int) -> dict[str, float]:
    # Only now: the process that measures memory elsewhere is to stay small.
    from src.core.stores.local import LocalStore

    passed = _seconds(lambda: _pass(source, folder / "copies"))
    shutil.rmtree(folder / "copies")
    store, lateness, idle = LocalStore(folder / "store"), list[float](), asyncio.run(_beside_a_loop(_rest))
    with _peak_growth() as grown:
        uploaded = _seconds(lambda: lateness.extend(asyncio.run(_beside_a_loop(lambda: store.upload("repo", source)))))
    (source / "config.json").write_text(f'{{"turn": {turn}}}')
    again = _seconds(lambda: store.upload("repo", source))
    checked_out = _seconds(lambda: store.checkout("repo", "main", folder / "models" / "out"))
    for leftover in ("store", "models"):
        shutil.rmtree(folder / leftover)
    return {
        "pass_seconds": passed,
        "upload_seconds": uploaded,
        "upload_to_pass": passed / uploaded,
        "second_upload_seconds": again,
        "checkout_seconds": checked_out,
        "peak_memory_growth_mb": grown[0] / MB,
        "idle_loop_lateness_p99_ms": quantiles(idle, n=100)[98] * 1000,
        "loop_lateness_p99_ms": quantiles(lateness, n=100)[98] * 1000,
        "loop_lateness_max_ms": max(lateness) * 1000,
    }


def _planted(folder: Path, sizes: tuple[int, ...]) -> Path:
    """Makes files without a repetition, so that nothing on the way may save work."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        with open(folder / f"model-{number}.safetensors", "wb") as file:
            for done in range(0, size, _CHUNK):
                file.write(os.urandom(min(_CHUNK, size - done)))
    (folder / "config.json").write_text("{}")
    return folder


def _pass(source: Path, copies: Path) -> None:
    copies.mkdir()
    view = memoryview(bytearray(_CHUNK))
    for path in source.iterdir():
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file, open(copies / path.name, "wb", buffering=0) as copy:
            while count := file.readinto(view):
                digest.update(view[:count])
                copy.write(view[:count])
            os.fsync(copy.fileno())


def _seconds(work: Callable[[], object]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


async def _beside_a_loop(work: Callable[[], object]) -> list[float]:
    """Does work in a thread, and returns by how many seconds an event loop beside it woke up too late, each time."""
    task = asyncio.create_task(asyncio.to_thread(work))
    lateness: list[float] = []
    while not task.done() or len(lateness) < 2:
        started = time.perf_counter()
        await asyncio.sleep(_NAP)
        lateness.append(time.perf_counter() - started - _NAP)
    await task
    return lateness


def _rest() -> None:
    time.sleep(2)


@contextmanager
def _peak_growth() -> Iterator[list[int]]:
    """Yields a list that holds, in the end, by how many bytes resident memory grew at most (Linux)."""
    grown: list[int] = []
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak until now: proc_pid_clear_refs(5)
    before = _resident("VmRSS")
    yield grown
    grown.append(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024
