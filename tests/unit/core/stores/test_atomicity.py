"""Uploads are whole or nothing, whoever dies and whoever else writes."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from src.core.errors import StoreUnavailableError
from src.core.stores.local import LocalStore
from src.core.stores.locks import locked
from src.core.stores.stat_cache import StatCache

Plant = Callable[[Mapping[str, bytes]], Path]

ROOT = Path(__file__).resolve().parents[4]

# Dies by SIGKILL at the given step, where every chunk copied and every call that changes the disk is a step.
KILLED_UPLOAD = """
import os, signal, sys
from pathlib import Path
from src.core.stores.local import LocalStore

left = int(sys.argv[3])

def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(call):
    def wrapper(*args, **kwargs):
        step()
        return call(*args, **kwargs)
    return wrapper

for name in ("fsync", "replace", "rename", "fchmod"):
    setattr(os, name, counted(getattr(os, name)))
LocalStore(Path(sys.argv[1])).upload("repo", Path(sys.argv[2]), progress=step)
print(-left)
"""

MANY_UPLOADS = """
import sys, threading
from pathlib import Path
from src.core.stores.local import LocalStore

store, folder, process = LocalStore(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]

def work(thread):
    for turn in range(3):
        source = folder / f"{process}-{thread}-{turn}"
        source.mkdir()
        (source / "file").write_text(source.name)
        store.upload("repo", source, message=source.name)

threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def child(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run(script: str, *args: object) -> tuple[int, str]:
    with child(script, *args) as process:
        return process.wait(timeout=30), process.stdout.read() if process.stdout else ""


def test_killed_upload_leaves_the_old_state_or_the_new_one(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    old = store.upload("repo", plant({"a": b"old"}))
    source = plant({name: name.encode() * 2_500_000 for name in "abc"})
    shutil.copytree(store.root, tmp_path / "rehearsal")
    _, counted = run(KILLED_UPLOAD, tmp_path / "rehearsal", source, 0)
    seed = random.randrange(10**6)
    print(f"seed {seed}, {counted.strip()} steps")
    for step in random.Random(seed).sample(range(1, int(counted) + 1), 5):
        root = tmp_path / f"killed-{step}"
        shutil.copytree(store.root, root)
        assert run(KILLED_UPLOAD, root, source, step)[0] == -signal.SIGKILL
        survivor = LocalStore(root)
        assert survivor.get_commit("repo", "main").message == ""
        assert survivor.verify("repo", "main")
        assert survivor.log("repo")[-1] == old
        after = survivor.upload("repo", source)
        assert survivor.verify("repo", "main") == after
        assert after.parents == (old.id,)


def test_error_at_any_flush_leaves_the_old_state_or_the_new_one(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.upload("repo", plant({"a": b"old"}))
    real_fsync, failures = os.fsync, 0
    while failures < 100:
        source = plant({"a": b"new", "b": bytes([failures])})
        countdown = iter(range(failures, -1, -1))

        def failing(descriptor: int, countdown: "iter[int]" = countdown) -> None:  # type: ignore[valid-type]
            if next(countdown, None) == 0:
                raise OSError(errno.ENOSPC, "no space left on device")
            real_fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        try:
            new = store.upload("repo", source)
            break
        except StoreUnavailableError:
            monkeypatch.setattr(os, "fsync", real_fsync)
            failures += 1
            present = store.verify("repo", "main")
            assert present == old or [entry.path for entry in present.files] == ["a", "b"]
            assert list((store.root / "tmp").iterdir()) == []
    assert failures > 5
    assert store.get_commit("repo", "main") == new


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the path of a descriptor")
def test_each_layer_is_flushed_before_the_next_names_it(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_repo("repo")
    events: list[str] = []
    real_replace = os.replace

    def replace(source: Path, target: Path) -> None:
        events.append(f"replace {target}")
        real_replace(source, target)

    monkeypatch.setattr(StatCache, "save", lambda self: None)  # losing it costs only time
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "replace", replace)
    commit = store.upload("repo", plant({"a": b"content"}))
    sha256, repo = commit.files[0].sha256, store.root / "repos/repo"
    blob = store.root / "blobs/sha256" / sha256[:2] / sha256
    written = (blob, repo / "commits" / f"{commit.id}.json", repo / "refs/main")
    steps = [step for path in written for step in ("tmp", f"replace {path}", f"{path.parent}")]
    named = ["tmp" if event.startswith(f"{store.root / 'tmp'}/") else event for event in events]
    assert [event for event in named if event in steps] == steps


def test_leftovers_are_swept_after_a_day(store: LocalStore, plant: Plant) -> None:
    store.create_repo("repo")
    for name in ("fresh", "stale"):
        (store.root / "tmp" / name).write_bytes(b"")
    (store.root / "tmp/folder").mkdir()
    yesterday = time.time() - 25 * 3600
    for name in ("stale", "folder"):
        os.utime(store.root / "tmp" / name, (yesterday, yesterday))
    store.upload("repo", plant({"a": b""}))
    assert [path.name for path in (store.root / "tmp").iterdir()] == ["fresh"]


def test_uploads_of_processes_and_threads_all_enter_the_log(store: LocalStore, tmp_path: Path) -> None:
    children = [child(MANY_UPLOADS, store.root, tmp_path, process) for process in range(2)]
    for process in children:
        with process:
            assert process.wait(timeout=30) == 0
    expected = {f"{p}-{t}-{turn}" for p in range(2) for t in range(3) for turn in range(3)}
    assert sorted(commit.message for commit in store.log("repo")) == sorted(expected)
    assert store.verify("repo", "main")


def test_creating_one_repository_at_once_succeeds_for_one(store: LocalStore) -> None:
    def create(_: int) -> bool:
        try:
            LocalStore(store.root).create_repo("repo")
        except Exception:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def test_writers_of_other_repositories_do_not_wait(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b""})
    store.upload("busy", source)
    with locked(store.root / "locks/busy.lock"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(store.upload, "other", source).result(timeout=10)


def test_readers_do_not_wait_for_a_writer(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    commit = store.upload("repo", plant({"a": b""}))
    with locked(store.root / "locks/repo.lock"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(store.checkout, "repo", "main", tmp_path / "out").result(timeout=10) == commit


def test_writers_of_one_repository_wait_for_each_other(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b""})
    store.create_repo("repo")
    with ThreadPoolExecutor(1) as pool:
        with locked(store.root / "locks/repo.lock"):
            waiting = pool.submit(store.upload, "repo", source)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
        assert waiting.result(timeout=10)
