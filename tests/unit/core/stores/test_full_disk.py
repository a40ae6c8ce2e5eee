"""A disk without room: said clearly, nothing half written, and all works again when there is room.

On a real small filesystem where one can be mounted, and everywhere under a limit on file sizes.
"""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from src.core.errors import StoreUnavailableError
from src.core.stores import disk_errors, intake, local
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]

ROOT = Path(__file__).resolve().parents[4]
KB, MB = 1024, 1024 * 1024
DISK = 8 * MB

UNDER_A_LIMIT = """
import json, os, resource, sys
from pathlib import Path
from src.core.errors import StoreUnavailableError
from src.core.stores.local import LocalStore

store, source, out = (Path(argument) for argument in sys.argv[1:])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
try:
    LocalStore(store).upload("repo", source)
except StoreUnavailableError as exc:
    left = [str(path) for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"]
    print(json.dumps({"message": exc.message, "details": exc.details, "left": left}))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
LocalStore(store).upload("repo", source)
LocalStore(store).checkout("repo", "main", out)
"""


def may_mount() -> bool:
    """Whether this process has Linux's CAP_SYS_ADMIN (bit 21)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 21 & 1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of DISK bytes."""
    if not may_mount():
        pytest.skip("mounting a small filesystem needs Linux and CAP_SYS_ADMIN")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(done.stderr)
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def store(small: Path) -> LocalStore:
    return LocalStore(small / "store")


def fill(folder: Path, leaving: int = 0) -> Path:
    """Takes up the room on a disk but for so many bytes; returns the file to remove."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4 * KB))
    os.truncate(filler, filler.stat().st_size - leaving)
    assert disk_errors.free_bytes(folder) == leaving
    return filler


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_too_much_is_refused_before_a_byte_is_copied(store: LocalStore, plant: Plant, small: Path) -> None:
    calls: list[int] = []
    source = plant({"a": bytes(5 * MB), "b": bytes(4 * MB)})
    with pytest.raises(StoreUnavailableError, match="9,437,184 bytes are needed") as caught:
        store.upload("repo", source, progress=lambda done, total: calls.append(done))
    details = caught.value.details
    assert (details["disk"], details["needed_bytes"]) == (str(small), 9 * MB)
    assert 0 < details["free_bytes"] <= DISK
    assert str(small) in caught.value.message
    assert (calls, files_below(small)) == ([], set())


def test_only_what_is_new_counts(store: LocalStore, small: Path) -> None:
    source = small / "source"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(3 * MB))
    time.sleep(0.03)  # past the clock's tick, so that the file is known from now on
    before = store.upload("repo", source)
    (source / "b").write_bytes(b"small")
    assert disk_errors.free_bytes(small) < 3 * MB
    assert store.diff("repo", before.id, store.upload("repo", source).id).added == ("b",)


def test_files_that_may_be_stored_already_are_tried(store: LocalStore, plant: Plant, small: Path) -> None:
    files = {f"{number}": os.urandom(100 * KB) for number in range(30)}
    before = store.upload("repo", plant(files))
    fill(small, leaving=2 * MB)
    again = plant({f"again/{name}": data for name, data in files.items()})  # other files: the stat cache knows none
    assert store.upload("other", again).size == before.size


def test_disk_that_fills_up_meanwhile_leaves_the_old_state(store: LocalStore, plant: Plant, small: Path) -> None:
    old = store.upload("repo", plant({"a": b"old"}))
    source = plant({"a": os.urandom(5 * MB)})
    before = files_below(store.root)

    def progress(done: int, total: int) -> None:
        if not (small / "filler").exists():
            fill(small)

    with pytest.raises(StoreUnavailableError, match="No space left on device") as caught:
        store.upload("repo", source, progress=progress)
    assert caught.value.details["needed_bytes"] == 5 * MB
    assert files_below(store.root) == before
    assert store.verify("repo", "main") == old
    (small / "filler").unlink()
    assert store.upload("repo", source).parents == (old.id,)
    assert store.verify("repo", "main")


def test_no_room_for_the_commit_leaves_the_old_state(
    store: LocalStore, plant: Plant, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.upload("repo", plant({"a": b"old"}))
    real = local.take_in

    def filling(*args: object) -> object:
        entries = real(*args)  # type: ignore[arg-type]
        fill(small)
        return entries

    source = plant({"a": b"new"})
    with monkeypatch.context() as patch:
        patch.setattr(local, "take_in", filling)
        with pytest.raises(StoreUnavailableError, match="0 are free") as caught:
            store.upload("repo", source)
    assert caught.value.details["needed_bytes"] > 100
    assert store.list_branches("repo") == {"main": old.id}
    assert list((store.root / "tmp").iterdir()) == []
    (small / "filler").unlink()
    assert store.upload("repo", source).parents == (old.id,)


def test_no_room_for_a_repository_leaves_nothing_of_it(store: LocalStore, small: Path) -> None:
    store.create_repo("old")
    fill(small)
    with pytest.raises(StoreUnavailableError, match="0 are free"):
        store.create_repo("new")
    assert [repo.name for repo in store.list_repos()] == ["old"]
    assert list((store.root / "tmp").iterdir()) == []
    (small / "filler").unlink()
    assert store.create_repo("new").name == "new"


def test_a_full_store_still_reads_deletes_and_collects(
    store: LocalStore, plant: Plant, small: Path, tmp_path: Path
) -> None:
    main = store.upload("repo", plant({"a": b"small"}))
    store.upload("repo", plant({"a": os.urandom(3 * MB)}), branch="dev")
    fill(small)
    with pytest.raises(StoreUnavailableError, match="has no room"):
        store.create_branch("repo", "new", "main")
    assert store.read("repo", "main", "a", limit=10) == b"small"
    assert store.checkout("repo", "dev", tmp_path / "out").size == 3 * MB
    store.delete_branch("repo", "dev")
    assert store.collect_garbage(older_than=0).bytes_freed > 3 * MB
    assert store.create_branch("repo", "new", "main") == main.id


def test_checkout_onto_a_full_disk_leaves_nothing(small: Path, plant: Plant, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "roomy")
    commit = store.upload("repo", plant({"a": os.urandom(3 * MB)}))
    filler = fill(small, leaving=MB)
    with pytest.raises(StoreUnavailableError, match="3,145,728 bytes are needed, 1,048,576 are free") as caught:
        store.checkout("repo", "main", small / "models/out")
    assert caught.value.details["disk"] == str(small)
    assert [path.name for path in (small / "models").iterdir()] == [".out.checkout.lock"]
    filler.unlink()
    assert store.checkout("repo", "main", small / "models/out") == commit


def test_file_larger_than_the_disk_takes_is_told_and_leaves_nothing(plant: Plant, tmp_path: Path) -> None:
    source = plant({"a": os.urandom(3 * MB)})
    command = [sys.executable, "-c", UNDER_A_LIMIT, *map(str, (tmp_path / "store", source, tmp_path / "out"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert os.strerror(errno.EFBIG) in told["message"]
    assert (told["details"]["needed_bytes"], told["left"]) == (3 * MB, [])
    assert (tmp_path / "out/a").read_bytes() == (source / "a").read_bytes()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_at_a_place_of_unknown_needs_names_the_disk(tmp_path: Path, code: int) -> None:
    class Full:
        root = tmp_path / "not/yet"

        @disk_errors.on_disk
        def write(self) -> None:
            raise OSError(code, os.strerror(code))

    with pytest.raises(StoreUnavailableError, match=os.strerror(code)) as caught:
        Full().write()
    assert os.path.ismount(caught.value.details["disk"])
    assert caught.value.details["free_bytes"] > 0


def test_other_trouble_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors.writing(tmp_path, 1):
        raise PermissionError(errno.EACCES, "denied")


def test_shared_bytes_need_no_room(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "free_bytes", lambda folder: 0)
    monkeypatch.setattr(disk_errors, "free_bytes", lambda folder: 0)
    monkeypatch.setattr(intake.Blobs, "clones", lambda self, source: False)
    roomy = LocalStore(tmp_path / "roomy")
    with pytest.raises(StoreUnavailableError):
        roomy.upload("repo", plant({"a": b"content"}))
    monkeypatch.setattr(intake.Blobs, "clones", lambda self, source: True)
    assert roomy.upload("repo", plant({"a": b"content"}))
