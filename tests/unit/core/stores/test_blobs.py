"""How bytes come into the store: shared where the filesystem can, copied where it cannot."""

import hashlib
import os
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path

import pytest

from src.core.stores import blobs
from src.core.stores.blobs import Blobs
from src.core.stores.hashing import Meter
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Copies by the descriptors alone, as a filesystem that shares blocks does; returns the sizes taken."""
    sizes: list[int] = []

    def reflink(source: int, target: int) -> bool:
        sizes.append(os.fstat(source).st_size)
        os.pwrite(target, os.pread(source, sizes[-1], 0), 0)
        return True

    monkeypatch.setattr(blobs, "reflink", reflink)
    return sizes


def test_shared_bytes_are_stored_under_their_own_digest(store: LocalStore, plant: Plant, sharing: list[int]) -> None:
    commit = store.upload("repo", plant({"a": b"content", "empty": b""}))
    assert store.verify("repo", "main") == commit
    assert [entry.sha256 for entry in commit.files] == [hashlib.sha256(data).hexdigest() for data in (b"content", b"")]
    assert sorted(sharing) == [0, 7]


def test_digest_is_of_the_shared_bytes_not_of_the_source(
    store: LocalStore, plant: Plant, sharing: list[int], tmp_path: Path
) -> None:
    source = plant({"a": b"x" * 5_000_000})
    times = (source / "a").stat()

    def rewrite(done: int, total: int) -> None:
        (source / "a").write_bytes(b"y" * 5_000_000)
        os.utime(source / "a", ns=(times.st_atime_ns, times.st_mtime_ns))

    commit = store.upload("repo", source, progress=rewrite)
    assert commit.files[0].sha256 == hashlib.sha256(b"x" * 5_000_000).hexdigest()
    assert store.verify("repo", "main")


def test_trying_to_share_leaves_nothing(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b"content"})
    store.create_repo("repo")
    before = set(store.root.rglob("*"))
    with FileIO(source / "a") as file:
        Blobs(store.root).clones(file)
    assert set(store.root.rglob("*")) == before


@pytest.mark.parametrize("size", [0, 1, 40_000_000])
def test_copy_is_exact_across_the_points_where_writing_back_begins(
    store: LocalStore, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    store.create_repo("repo")
    with FileIO(tmp_path / "file") as source:
        sha256, counted = Blobs(store.root).add(source, size, Meter(size))
    assert (sha256, counted) == (hashlib.sha256(data).hexdigest(), size)
    assert Blobs(store.root).path(sha256).read_bytes() == data


def test_blob_that_is_collected_while_it_is_compared_is_taken_in(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload("repo", plant({"a": b"content"}))
    real = Blobs.holds

    def collected(self: Blobs, sha256: str, size: int) -> bool:
        held = real(self, sha256, size)
        monkeypatch.setattr(Blobs, "holds", real)
        self.path(sha256).unlink()
        return held

    source = plant({"b": b"content"})
    monkeypatch.setattr(Blobs, "holds", collected)
    store.upload("repo", source)
    assert store.verify("repo", "main")
