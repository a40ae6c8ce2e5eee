"""Merging branches of the embedded version store."""

import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import pytest

from src.core.errors import ConflictError, InvalidInputError
from src.core.stores.base import Commit
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]

BASE = {"a": b"a", "b": b"b", "c": b"c"}


def paths(commit: Commit) -> set[str]:
    return {entry.path for entry in commit.files}


@pytest.fixture
def forked(store: LocalStore, plant: Plant) -> Callable[[Mapping[str, bytes], Mapping[str, bytes]], None]:
    """Returns a function that makes `main` and `dev` two trees that both descend from BASE."""

    def fork(main: Mapping[str, bytes], dev: Mapping[str, bytes]) -> None:
        store.upload("repo", plant(BASE))
        store.upload("repo", plant(dev), branch="dev")
        store.upload("repo", plant(main))

    return fork


Forked = Callable[[Mapping[str, bytes], Mapping[str, bytes]], None]


def test_merge_fast_forwards_where_it_can(store: LocalStore, plant: Plant) -> None:
    store.upload("repo", plant(BASE))
    dev = store.upload("repo", plant({"a": b"2"}), branch="dev")
    assert store.merge("repo", "dev", "main") == store.get_commit("repo", "main") == dev


def test_merge_into_a_branch_without_a_commit_takes_it_over(store: LocalStore, plant: Plant) -> None:
    dev = store.upload("repo", plant(BASE), branch="dev")
    assert store.merge("repo", "dev", "main") == dev


def test_merge_joins_changes_of_both_sides(store: LocalStore, forked: Forked) -> None:
    forked({**BASE, "a": b"main"}, {"b": b"b", "c": b"dev", "new": b""})
    with pytest.raises(ConflictError):
        store.merge("repo", "dev", "main")
    forked({**BASE, "b": b"main"}, {"b": b"b", "c": b"dev", "new": b""})
    ours, theirs = store.get_commit("repo", "main"), store.get_commit("repo", "dev")
    merged = store.merge("repo", "dev", "main", message="join")
    assert (merged.parents, merged.message) == ((ours.id, theirs.id), "join")
    assert paths(merged) == {"b", "c", "new"}
    assert store.diff("repo", merged.id, "dev").changed == ("b",)
    assert store.log("repo")[:2] == [merged, ours]


def test_conflict_names_the_paths_and_changes_nothing(store: LocalStore, forked: Forked) -> None:
    forked({"a": b"1", "b": b"1", "c": b"c"}, {"a": b"2", "c": b"c"})
    before = store.list_branches("repo")
    with pytest.raises(ConflictError) as caught:
        store.merge("repo", "dev", "main")
    assert caught.value.details["paths"] == ["a", "b"]
    assert store.list_branches("repo") == before


def test_a_file_where_the_other_side_has_a_folder_conflicts(store: LocalStore, forked: Forked) -> None:
    forked({**BASE, "x": b""}, {**BASE, "x/y": b""})
    with pytest.raises(ConflictError) as caught:
        store.merge("repo", "dev", "main")
    assert caught.value.details["paths"] == ["x/y"]


def test_same_change_on_both_sides_is_no_conflict(store: LocalStore, forked: Forked) -> None:
    forked({**BASE, "a": b"2", "m": b""}, {**BASE, "a": b"2", "d": b""})
    assert paths(store.merge("repo", "dev", "main")) == {"a", "b", "c", "d", "m"}


def test_merged_again_finds_nothing_then_only_what_is_new(store: LocalStore, plant: Plant, forked: Forked) -> None:
    forked({**BASE, "m": b""}, {**BASE, "d": b""})
    store.merge("repo", "dev", "main")
    with pytest.raises(InvalidInputError, match="nothing to merge"):
        store.merge("repo", "dev", "main")
    store.upload("repo", plant({**BASE, "d": b"2"}), branch="dev")
    assert paths(store.merge("repo", "dev", "main")) == {"a", "b", "c", "d", "m"}


def test_base_is_found_by_descent_though_clocks_run_backwards(
    store: LocalStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(2_000_000_000, -1)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    first = store.upload("repo", plant({"a": b"1"}))
    store.upload("repo", plant({"a": b"2"}))
    store.upload("repo", plant({"a": b"1"}), branch="dev")
    store.upload("repo", plant({"a": b"2", "b": b""}))
    merged = store.merge("repo", "dev", "main")
    assert store.diff("repo", first.id, merged.id).changed == ()


def test_merging_what_is_there_already_is_refused(store: LocalStore, plant: Plant) -> None:
    old = store.upload("repo", plant(BASE))
    store.upload("repo", plant({"a": b"2"}))
    for source in ("main", old.id):
        with pytest.raises(InvalidInputError, match="nothing to merge"):
            store.merge("repo", source, "main")
