"""Checkouts: whole, verified once, noticed when touched, never changed under their readers."""

import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from src.core.errors import ConflictError, IntegrityError, InvalidInputError
from src.core.stores import blobs, disk
from src.core.stores.checkout import Checkout, Record
from src.core.stores.local import LocalStore
from src.core.stores.locks import locked

Plant = Callable[[Mapping[str, bytes]], Path]

ROOT = Path(__file__).resolve().parents[4]
FILES = {"a": b"alpha", "sub/模型": b"beta" * 1000}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def out(store: LocalStore, plant: Plant, tmp_path: Path) -> Path:
    """A fresh checkout of FILES."""
    store.upload("repo", plant(FILES))
    store.checkout("repo", "main", tmp_path / "checkouts/out")
    return tmp_path / "checkouts/out"


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes checkouts copies, as on a filesystem of their own."""
    monkeypatch.setattr(blobs, "_cloned", lambda blob, target: False)
    monkeypatch.setattr(blobs, "_linked", lambda blob, target: False)


def replaced(path: Path, data: bytes) -> None:
    """Puts a new file of the same size and times in the place of the old one."""
    times = path.stat()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def can_exchange(folder: Path) -> bool:
    """Whether the filesystem offers what the one-step swap needs."""
    with TemporaryDirectory(dir=folder) as one, TemporaryDirectory(dir=folder) as other:
        return disk._exchange(Path(one), Path(other))


def test_intact_target_is_left_unread(store: LocalStore, out: Path, reads: list[str]) -> None:
    inode = out.stat().st_ino
    store.checkout("repo", "main", out)
    assert (reads, out.stat().st_ino) == ([], inode)


@pytest.mark.usefixtures("copied")
def test_copies_are_verified_and_left_unread_too(
    store: LocalStore, plant: Plant, tmp_path: Path, reads: list[str]
) -> None:
    store.upload("repo", plant(FILES))
    store.checkout("repo", "main", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    reads.clear()
    store.checkout("repo", "main", tmp_path / "out")
    assert reads == []


def test_files_are_read_only(out: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o444}


def test_nothing_is_left_beside_but_record_and_lock(out: Path) -> None:
    assert {p.name for p in out.parent.iterdir()} == {"out", "out.checkout.json", ".out.checkout.lock"}


def test_replaced_file_is_noticed_and_the_tree_rebuilt(store: LocalStore, out: Path) -> None:
    replaced(out / "a", b"ALPHA")
    store.checkout("repo", "main", out)
    assert contents(out) == FILES


@pytest.mark.parametrize("extra", ["b", "sub/b", "new/b"])
def test_added_file_is_removed(store: LocalStore, out: Path, extra: str) -> None:
    (out / extra).parent.mkdir(exist_ok=True)
    (out / extra).write_bytes(b"")
    store.checkout("repo", "main", out)
    assert contents(out) == FILES


def test_link_in_the_place_of_a_file_is_replaced(store: LocalStore, out: Path, tmp_path: Path) -> None:
    (out / "a").rename(tmp_path / "moved")
    (out / "a").symlink_to(tmp_path / "moved")
    store.checkout("repo", "main", out)
    assert not (out / "a").is_symlink()


def test_added_link_is_removed(store: LocalStore, out: Path) -> None:
    (out / "link").symlink_to("a")
    store.checkout("repo", "main", out)
    assert not (out / "link").is_symlink()


def test_record_names_the_commit_asked_for(store: LocalStore, plant: Plant, out: Path, reads: list[str]) -> None:
    store.upload("repo", plant({"a": b""}))
    again = store.upload("repo", plant(FILES))
    reads.clear()
    store.checkout("repo", again.id, out)
    assert (Record.read(out.with_name("out.checkout.json")).commit, reads) == (again.id, [])


def test_removed_target_is_built_again(store: LocalStore, out: Path) -> None:
    shutil.rmtree(out)
    store.checkout("repo", "main", out)
    assert contents(out) == FILES


@pytest.mark.usefixtures("copied")
def test_file_written_in_place_is_noticed(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant(FILES))
    path = tmp_path / "out/a"
    store.checkout("repo", "main", path.parent)
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"ALPHA")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    store.checkout("repo", "main", path.parent)
    assert contents(path.parent) == FILES


def test_tampered_blob_is_never_checked_out(store: LocalStore, out: Path, tmp_path: Path) -> None:
    blob = next(p for p in (store.root / "blobs").rglob("*") if p.is_file() and p.stat().st_size == 5)
    blob.chmod(0o644)
    blob.write_bytes(b"ALPHA")
    with pytest.raises(IntegrityError) as caught:
        store.checkout("repo", "main", tmp_path / "new")
    assert caught.value.details["files"] == ["a"]
    assert [p.name for p in tmp_path.glob("*new*")] == [".new.checkout.lock"]


@pytest.mark.usefixtures("copied")
def test_tampered_blob_is_found_while_it_is_copied(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant({"a": b"alpha"}))
    blob = next(p for p in (store.root / "blobs").rglob("*") if p.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"ALPHA")
    with pytest.raises(IntegrityError):
        store.checkout("repo", "main", tmp_path / "new")


def test_missing_blob_is_named(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant({"a": b"alpha"}))
    next(p for p in (store.root / "blobs").rglob("*") if p.is_file()).unlink()
    with pytest.raises(IntegrityError, match=": a"):
        store.checkout("repo", "main", tmp_path / "new")


def test_another_checkout_of_the_same_blobs_rebuilds_nothing(
    store: LocalStore, out: Path, tmp_path: Path, reads: list[str]
) -> None:
    inode = out.stat().st_ino
    store.checkout("repo", "main", tmp_path / "second")  # a hard link more: the ctime of the first's files moves
    store.checkout("repo", "main", out)
    reads.clear()
    store.checkout("repo", "main", out)
    assert (reads, out.stat().st_ino) == ([], inode)


def test_racy_files_are_read_again(
    store: LocalStore, plant: Plant, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.time_ns()
    monkeypatch.setattr(Checkout, "_filesystem_time", lambda self: started)  # a clock that does not tick
    store.upload("repo", plant(FILES))
    store.checkout("repo", "main", tmp_path / "out")
    reads.clear()
    store.checkout("repo", "main", tmp_path / "out")
    assert len(reads) == len(FILES)


def test_record_vouches_for_every_file_of_a_settled_checkout(out: Path) -> None:
    assert set(Record.read(out.with_name("out.checkout.json")).files) == set(FILES)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"commit": "x", "files": {"a": 1}}'])
def test_spoilt_record_costs_only_time(store: LocalStore, out: Path, text: str) -> None:
    out.with_name("out.checkout.json").write_text(text)
    replaced(out / "a", b"ALPHA")
    store.checkout("repo", "main", out)
    assert contents(out) == FILES


def test_folder_of_somebody_else_is_not_touched(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant(FILES))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/diary").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="move it away"):
        store.checkout("repo", "main", tmp_path / "home")
    assert contents(tmp_path / "home") == {"diary": b"mine"}


def test_same_tree_without_a_record_is_adopted(store: LocalStore, out: Path) -> None:
    out.with_name("out.checkout.json").unlink()
    inode = out.stat().st_ino
    store.checkout("repo", "main", out)
    assert out.stat().st_ino == inode


def test_empty_folder_is_taken(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant(FILES))
    (tmp_path / "out").mkdir()
    store.checkout("repo", "main", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("place", [".", "..", "blobs", "repos/repo/x"])
def test_store_itself_is_no_target(store: LocalStore, plant: Plant, place: str) -> None:
    store.upload("repo", plant(FILES))
    with pytest.raises(InvalidInputError, match="overlaps"):
        store.checkout("repo", "main", store.root / place)


@pytest.mark.parametrize("exchange", [True, False])
def test_reader_of_the_old_tree_sees_no_change(
    store: LocalStore, plant: Plant, out: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if exchange and can_exchange(out.parent):  # one step: nothing is renamed away first
        monkeypatch.delattr(os, "rename")
    elif not exchange:
        monkeypatch.setattr(disk, "_exchange", lambda left, right: False)
    with open(out / "a", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        store.upload("repo", plant({"a": b"other"}))
        store.checkout("repo", "main", out)
        assert (mapped[:], contents(out)) == (b"alpha", {"a": b"other"})
    assert {p.name for p in out.parent.iterdir()} == {"out", "out.checkout.json", ".out.checkout.lock"}


def test_what_a_killed_checkout_left_is_swept(store: LocalStore, out: Path) -> None:
    left = out.with_name(f".out.{'0' * 16}.partial")
    left.mkdir()
    (left / "a").write_bytes(b"half")
    store.checkout("repo", "main", out)
    assert not left.exists()


def test_progress_reaches_the_total(store: LocalStore, out: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        store.checkout("repo", "main", tmp_path / "new", progress=lambda done, total: calls.append((done, total)))
        assert calls[-1] == (4005, 4005)
        calls.clear()


def test_checkouts_of_one_target_wait_for_each_other(store: LocalStore, out: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked(out.with_name(".out.checkout.lock")):
            waiting = pool.submit(store.checkout, "repo", "main", out)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
        assert waiting.result(timeout=10)


def test_processes_that_check_out_one_target_all_get_it_whole(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    files = {f"{n}": bytes([n]) * 100_000 for n in range(20)}
    store.upload("repo", plant(files))
    script = (
        "import sys; from pathlib import Path; from src.core.stores.local import LocalStore\n"
        "out = Path(sys.argv[2])\n"
        "LocalStore(Path(sys.argv[1])).checkout('repo', 'main', out)\n"
        "assert all((out / str(n)).read_bytes() == bytes([n]) * 100_000 for n in range(20))\n"
    )
    command = [sys.executable, "-c", script, str(store.root), str(tmp_path / "out")]
    children = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [child.wait(timeout=30) for child in children] == [0] * 4
    assert contents(tmp_path / "out") == files
