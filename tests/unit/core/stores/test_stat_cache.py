"""Files that look unchanged are not read again, unless they might have changed unseen."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from src.core.errors import IntegrityError
from src.core.stores import stat_cache
from src.core.stores.disk import filesystem_time
from src.core.stores.local import LocalStore
from src.core.stores.stat_cache import FileStamp, StatCache

Plant = Callable[[Mapping[str, bytes]], Path]

TREE = {"big": b"x" * 10_000, "small": b"y"}


def settled(source: Path) -> Path:
    time.sleep(0.03)
    return source


def test_unchanged_files_are_not_read_again(store: LocalStore, plant: Plant, reads: list[str]) -> None:
    source = settled(plant(TREE))
    first = store.upload("repo", source)
    reads.clear()
    assert store.upload("other", source).digest == first.digest
    assert reads == []


def test_changed_file_is_read_again_though_its_times_were_put_back(store: LocalStore, plant: Plant) -> None:
    source = settled(plant(TREE))
    before = store.upload("repo", source)
    times = (source / "small").stat()
    (source / "small").write_bytes(b"z")
    os.utime(source / "small", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.diff("repo", before.id, store.upload("repo", source).id).changed == ("small",)


def test_files_written_within_the_present_tick_are_not_trusted(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    source = plant(TREE)
    oldest = min(path.stat().st_ctime_ns for path in source.iterdir())
    monkeypatch.setattr(stat_cache, "filesystem_time", lambda path: oldest)
    store.upload("repo", source)
    reads.clear()
    store.upload("repo", source)
    assert len(reads) >= len(TREE)


@pytest.mark.parametrize(("age", "trusted"), [(3, True), (1, False)])
def test_another_filesystem_gets_a_margin_for_the_coarsest_stamps(tmp_path: Path, age: int, trusted: bool) -> None:
    (tmp_path / "tmp").mkdir()
    device, sha256 = tmp_path.stat().st_dev + 1, "0" * 64
    written = time.time_ns() - age * 10**9
    stamp = FileStamp(1, 1, written, written)
    cache = StatCache(tmp_path)
    cache.learn(device, stamp, sha256, cache.moment(device))
    cache.save()
    assert (StatCache(tmp_path).digest(device, stamp) == sha256) is trusted


def test_filesystem_clock_is_never_behind_a_change_made_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert filesystem_time(tmp_path / "clock") >= (tmp_path / "file").stat().st_ctime_ns


def test_change_within_the_same_tick_is_noticed(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(FileStamp, "of", classmethod(lambda cls, status: cls(1, status.st_size, now, now)))
    monkeypatch.setattr(stat_cache, "filesystem_time", lambda path: now)
    source = plant({"a": b"old"})
    store.upload("repo", source)
    (source / "a").write_bytes(b"new")
    assert [e.sha256 for e in store.upload("repo", source).files] == [
        "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"  # printf new | sha256sum
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": "b"}', "\x00"])
def test_spoilt_cache_costs_only_time(store: LocalStore, plant: Plant, text: str) -> None:
    source = settled(plant(TREE))
    first = store.upload("repo", source)
    (store.root / "stat-cache.json").write_text(text)
    assert store.upload("repo", source) == first


def test_cache_cannot_smuggle_in_what_is_no_digest(store: LocalStore, plant: Plant) -> None:
    source = settled(plant({"a": b"content"}))
    first = store.upload("repo", source)
    cache = store.root / "stat-cache.json"
    cache.write_text(cache.read_text().replace(first.files[0].sha256, str(source / "a")))
    assert store.upload("repo", source) == first


def test_cached_file_whose_blob_is_gone_is_taken_in_again(store: LocalStore, plant: Plant) -> None:
    source = settled(plant({"a": b"content"}))
    store.upload("repo", source)
    next(path for path in (store.root / "blobs").rglob("*") if path.is_file()).unlink()
    store.upload("repo", source)
    assert store.verify("repo", "main")


def test_upload_of_the_same_files_repairs_found_damage(store: LocalStore, plant: Plant) -> None:
    source = settled(plant({"a": b"content"}))
    store.upload("repo", source)
    blob = next(path for path in (store.root / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"tampered"[:7])
    with pytest.raises(IntegrityError):
        store.verify("repo", "main")
    store.upload("repo", source)
    assert store.verify("repo", "main")


def test_cache_keeps_the_newest_entries(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(stat_cache, "_MOST_ENTRIES", 1)
    old, new = settled(plant({"old/a": b"1", "new/a": b"2"})) / "old", Path()
    new = old.parent / "new"
    store.upload("repo", old)
    store.upload("repo", new)
    reads.clear()
    store.upload("other", new)
    assert reads == []
    store.upload("other", old)
    assert reads != []
