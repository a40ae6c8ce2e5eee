"""Reading single files out of a commit, and whether the store can be used at all."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from src.core.errors import IntegrityError, InvalidInputError, NotFoundError, StoreUnavailableError
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]

FILES = {"config.json": b'{"a": 1}', "sub/empty": b""}


@pytest.fixture
def filled(store: LocalStore, plant: Plant) -> LocalStore:
    store.upload("repo", plant(FILES))
    return store


def spoil(store: LocalStore, old: bytes, new: bytes | None) -> None:
    blob = next(path for path in store.root.glob("blobs/sha256/*/*") if path.read_bytes() == old)
    blob.unlink()
    if new is not None:
        blob.write_bytes(new)


@pytest.mark.parametrize(("limit", "expected"), [(0, b""), (3, b'{"a'), (8, b'{"a": 1}'), (10**12, b'{"a": 1}')])
def test_read_returns_the_first_bytes(filled: LocalStore, limit: int, expected: bytes) -> None:
    assert filled.read("repo", "main", "config.json", limit=limit) == expected


def test_read_takes_any_ref(filled: LocalStore, plant: Plant) -> None:
    old = filled.get_commit("repo", "main").id
    filled.upload("repo", plant({"config.json": b"new"}))
    assert filled.read("repo", old[:9], "config.json", limit=100) == FILES["config.json"]
    assert filled.read("repo", old[:9], "sub/empty", limit=100) == b""


@pytest.mark.parametrize(
    ("repo", "ref", "path"),
    [("other", "main", "config.json"), ("repo", "dev", "config.json"), ("repo", "main", "sub"), ("repo", "main", "")],
)
def test_what_is_not_there_is_not_found(filled: LocalStore, repo: str, ref: str, path: str) -> None:
    with pytest.raises(NotFoundError):
        filled.read(repo, ref, path, limit=1)


def test_negative_limit_is_refused(filled: LocalStore) -> None:
    with pytest.raises(InvalidInputError, match="-1"):
        filled.read("repo", "main", "config.json", limit=-1)


@pytest.mark.parametrize(("new", "limit"), [(None, 1), (b'{"a": 2}', 8), (b'{"a": 1', 8), (b"", 100)])
def test_damage_is_named(filled: LocalStore, new: bytes | None, limit: int) -> None:
    spoil(filled, FILES["config.json"], new)
    with pytest.raises(IntegrityError) as caught:
        filled.read("repo", "main", "config.json", limit=limit)
    assert caught.value.details["files"] == ["config.json"]


def test_ping_answers_for_a_store_in_use_and_for_one_that_can_be_made(filled: LocalStore, tmp_path: Path) -> None:
    filled.ping()
    LocalStore(tmp_path / "not/yet/there").ping()
    assert not (tmp_path / "not").exists()


def test_ping_refuses_a_root_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in ("file", "file/store"):
        with pytest.raises(StoreUnavailableError, match="file"):
            LocalStore(tmp_path / root).ping()


def test_ping_refuses_a_root_that_may_not_be_written(filled: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by chmod: the tests may run as root, for whom it means nothing.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(StoreUnavailableError, match="not writable"):
        filled.ping()
