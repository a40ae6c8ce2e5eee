"""Lock files, among threads and among processes."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from src.core.stores.locks import locked, owned, shared

ROOT = Path(__file__).resolve().parents[4]

HOLDER = """
import sys
from pathlib import Path
from src.core.stores import locks

with getattr(locks, sys.argv[1])(Path(sys.argv[2])):
    print("in", flush=True)
    sys.stdin.readline()
"""

KINDS = {"locked": locked, "owned": owned, "shared": shared}


@contextmanager
def held_by_another_process(kind: str, path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLDER, kind, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "in\n"
        yield process
        if process.poll() is None:
            process.communicate("\n", timeout=10)


@contextmanager
def held_by_another_thread(kind: str, path: Path) -> Iterator[None]:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with KINDS[kind](path):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    yield
    leave.set()
    thread.join()


def enters(kind: str, path: Path, timeout: float) -> bool:
    """Whether another thread comes in within so many seconds; it goes on trying, and must come in later."""

    def enter() -> bool:
        with KINDS[kind](path):
            return True

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(enter).result(timeout)
    except TimeoutError:
        return False
    finally:
        pool.shutdown(wait=False)


@pytest.mark.parametrize("holder", [held_by_another_process, held_by_another_thread])
@pytest.mark.parametrize(
    ("inside", "outside", "may_enter"),
    [
        ("locked", "locked", False),
        ("shared", "shared", True),
        ("shared", "owned", False),
        ("owned", "shared", False),
        ("owned", "owned", False),
    ],
)
def test_who_may_enter_beside_whom(tmp_path: Path, holder: object, inside: str, outside: str, may_enter: bool) -> None:
    path = tmp_path / "lock"
    with holder(inside, path):  # type: ignore[operator]
        assert enters(outside, path, timeout=10 if may_enter else 0.2) is may_enter
    assert enters(outside, path, timeout=10)


def test_the_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    with held_by_another_process("owned", tmp_path / "lock") as process:
        process.kill()
        process.wait()
        assert enters("shared", tmp_path / "lock", timeout=10)


def test_users_of_one_process_hold_the_lock_until_the_last_has_left(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_by_another_thread("shared", path):
        with shared(path):
            pass
        descriptor = os.open(path, os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    for kind in KINDS.values():
        with pytest.raises(KeyError), kind(tmp_path / "lock"):
            raise KeyError
    assert all(enters(kind, tmp_path / "lock", timeout=10) for kind in KINDS)
