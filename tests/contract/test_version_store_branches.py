"""What every version store keeps about repositories, branches, merges, and names that do not fit."""

from pathlib import Path

import pytest

from src.core.errors import ConflictError, InvalidInputError, NotFoundError
from src.core.stores.base import Diff, VersionStore
from tests.contract.version_stores import Plant, entries, history

FILES = {"config.json": b"{}", "weights/model.safetensors": b"0" * 100, "說明/讀我 🤖.md": b""}


# ---------------------------------------------------------------- repositories, branches, history


def test_repositories_are_listed_and_made_once(store: VersionStore, repo: str) -> None:
    made = store.create_repo(repo)
    assert (made.name, made.default_branch) == (repo, "main")
    assert store.create_repo(repo, exist_ok=True) == made
    assert made in store.list_repos()
    with pytest.raises(ConflictError, match="already"):
        store.create_repo(repo)


def test_a_new_repository_holds_no_files(store: VersionStore, repo: str) -> None:
    store.create_repo(repo)
    assert (set(store.list_branches(repo)), history(store, repo) if store.list_branches(repo)["main"] else []) == (
        {"main"},
        [],
    )


def test_branches_live_and_die(store: VersionStore, repo: str, plant: Plant) -> None:
    first = store.upload(repo, plant({"a": b"1"}))
    second = store.upload(repo, plant({"a": b"2"}))
    assert store.create_branch(repo, "old", first.id[:9]) == first.id
    assert store.create_branch(repo, "dev", "main") == second.id
    assert store.list_branches(repo) == {"dev": second.id, "main": second.id, "old": first.id}
    store.delete_branch(repo, "old")
    assert set(store.list_branches(repo)) == {"dev", "main"}


def test_branches_that_exist_and_the_default_one_conflict(store: VersionStore, repo: str, plant: Plant) -> None:
    store.upload(repo, plant(FILES))
    with pytest.raises(ConflictError, match="already"):
        store.create_branch(repo, "main", "main")
    with pytest.raises(ConflictError, match="default"):
        store.delete_branch(repo, "main")


def test_the_log_is_newest_first_bounded_and_whole(store: VersionStore, repo: str, plant: Plant) -> None:
    commits = [store.upload(repo, plant({"a": bytes([n])}), message=f"number {n}") for n in range(4)]
    assert store.log(repo, limit=3) == commits[:0:-1]
    assert history(store, repo, commits[1].id) == [commits[1], commits[0]]


def test_a_diff_sorts_what_changed(store: VersionStore, repo: str, plant: Plant) -> None:
    left = store.upload(repo, plant({"kept": b"k", "gone": b"g", "new content": b"1"}))
    right = store.upload(repo, plant({"kept": b"k", "b": b"", "模型": b"", "new content": b"2"}))
    assert store.diff(repo, left.id, "main") == Diff(("b", "模型"), ("gone",), ("new content",))
    assert store.diff(repo, right.id, right.id[:8]) == Diff((), (), ())


# ---------------------------------------------------------------- merging


def test_a_merge_joins_what_both_sides_changed(store: VersionStore, repo: str, plant: Plant) -> None:
    store.upload(repo, plant({"base": b"0", "gone": b"0", "main": b"0"}))
    store.upload(repo, plant({"base": b"0", "main": b"0", "dev": b"1"}), branch="dev")
    store.upload(repo, plant({"base": b"0", "gone": b"0", "main": b"1"}))
    merged = store.merge(repo, "dev", "main", message="join them")
    assert merged.files == entries({"base": b"0", "main": b"1", "dev": b"1"})
    assert (merged.message, store.get_commit(repo, "main")) == ("join them", merged)


def test_a_merge_into_a_branch_that_has_not_moved_takes_the_tree_over(
    store: VersionStore, repo: str, plant: Plant
) -> None:
    store.upload(repo, plant({"a": b"0"}))
    dev = store.upload(repo, plant({"a": b"1", "b": b""}), branch="dev")
    merged = store.merge(repo, dev.id[:8], "main")
    assert (merged.files, store.list_branches(repo)["main"]) == (dev.files, merged.id)
    assert dev.id in {merged.id, *merged.parents}


def test_a_conflict_names_its_paths_and_changes_nothing(store: VersionStore, repo: str, plant: Plant) -> None:
    base = {"both": b"0", "deleted here": b"0", "alike": b"0", "fine": b"0"}
    store.upload(repo, plant(base))
    store.upload(repo, plant({"both": b"1", "deleted here": b"1", "alike": b"1", "fine": b"1"}), branch="dev")
    main = store.upload(repo, plant({"both": b"2", "alike": b"1", "fine": b"0"}))
    with pytest.raises(ConflictError, match="both") as caught:
        store.merge(repo, "dev", "main")
    assert caught.value.details["paths"] == ["both", "deleted here"]
    assert store.list_branches(repo)["main"] == main.id


def test_a_merge_that_would_put_a_file_below_a_file_conflicts(store: VersionStore, repo: str, plant: Plant) -> None:
    store.upload(repo, plant({"base": b"0"}))
    store.upload(repo, plant({"base": b"0", "x/y": b"1"}), branch="dev")
    store.upload(repo, plant({"base": b"0", "x": b"2"}))
    with pytest.raises(ConflictError) as caught:
        store.merge(repo, "dev", "main")
    assert caught.value.details["paths"] == ["x/y"]


@pytest.mark.parametrize("source", ["main", "dev"])
def test_nothing_to_merge_is_said(store: VersionStore, repo: str, plant: Plant, source: str) -> None:
    store.upload(repo, plant(FILES))
    store.create_branch(repo, "dev", "main")
    with pytest.raises(InvalidInputError, match="nothing to merge"):
        store.merge(repo, source, "main")


# ---------------------------------------------------------------- names that do not fit


@pytest.mark.parametrize("name", ["", "a", "Gemma", "a/b", "..", "../x", "-a", ".a", "a" * 64, "模型", "abc\n", "a b"])
def test_bad_repository_names_are_refused(store: VersionStore, name: str, plant: Plant) -> None:
    for work in (
        lambda: store.create_repo(name),
        lambda: store.upload(name, plant({"a": b""})),
        lambda: store.get_commit(name, "main"),
    ):
        with pytest.raises(InvalidInputError, match="cannot name a repository"):
            work()


@pytest.mark.parametrize("name", ["", "Dev", "a/b", "..", "../../x", ".a", "deadbeef", "0" * 64, "a" * 64])
def test_bad_branch_names_are_refused(store: VersionStore, repo: str, plant: Plant, name: str) -> None:
    store.upload(repo, plant({"a": b""}))
    for work in (
        lambda: store.create_branch(repo, name, "main"),
        lambda: store.upload(repo, plant({"a": b"1"}), branch=name),
    ):
        with pytest.raises(InvalidInputError, match="cannot name a branch"):
            work()


@pytest.mark.parametrize("ref", ["nowhere", "0123456", "0" * 64, "abc12"])
def test_unknown_refs_are_not_found(store: VersionStore, repo: str, plant: Plant, tmp_path: Path, ref: str) -> None:
    store.upload(repo, plant({"a": b""}))
    for work in (
        lambda: store.get_commit(repo, ref),
        lambda: store.log(repo, ref),
        lambda: store.diff(repo, "main", ref),
        lambda: store.merge(repo, ref, "main"),
        lambda: store.create_branch(repo, "dev", ref),
        lambda: store.checkout(repo, ref, tmp_path / "out"),
        lambda: store.verify(repo, ref),
        lambda: store.read(repo, ref, "a", limit=1),
    ):
        with pytest.raises(NotFoundError):
            work()
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_not_found(store: VersionStore, repo: str, plant: Plant) -> None:
    store.upload(repo, plant({"a": b""}))
    for work in (
        lambda: store.list_branches("no-such-repo"),
        lambda: store.get_commit("no-such-repo", "main"),
        lambda: store.create_branch("no-such-repo", "dev", "main"),
        lambda: store.delete_branch(repo, "nobranch"),
        lambda: store.merge(repo, "main", "nobranch"),
        lambda: store.read(repo, "main", "no such file", limit=1),
        lambda: store.read(repo, "main", "no such file", limit=0),
    ):
        with pytest.raises(NotFoundError):
            work()


def test_text_that_is_not_unicode_is_refused(store: VersionStore, repo: str, plant: Plant) -> None:
    for options in ({"message": "\ud800"}, {"metadata": {"a": "\ud800"}}):
        with pytest.raises(InvalidInputError):
            store.upload(repo, plant({"a": b""}), **options)
