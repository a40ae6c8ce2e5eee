"""Merges and differences go by path, from where two branches parted."""

from collections.abc import Mapping

import lakefs
import pytest
from lakefs.exceptions import BadRequestException, ConflictException, NotFoundException

BASE = {"kept": "0", "theirs": "0", "ours": "0", "both": "0", "gone": "0"}


def put(branch: lakefs.Branch, message: str, files: Mapping[str, str | None]) -> None:
    for path, content in files.items():
        if content is None:
            branch.object(path).delete()
        else:
            branch.object(path).upload(content)
    branch.commit(message)


def contents(reference: lakefs.Reference) -> dict[str, bytes | str]:
    return {found.path: reference.object(found.path).reader().read() for found in reference.objects()}


def changes(left: lakefs.Reference, right: str, **wish: str | int) -> list[tuple[str, str, int | None]]:
    return [(change.type, change.path, change.size_bytes) for change in left.diff(right, **wish)]


@pytest.fixture
def other(repository: lakefs.Repository, main: lakefs.Branch) -> lakefs.Branch:
    put(main, "base", BASE)
    return repository.branch("other").create("main")


def test_changes_of_both_sides_come_together(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "theirs", {"theirs": "1", "new": "1", "gone": None})
    put(main, "ours", {"ours": "2"})
    before = main.get_commit().id
    merged = other.merge_into(main)
    assert contents(main) == {"kept": b"0", "theirs": b"1", "ours": b"2", "both": b"0", "new": b"1"}
    commit = main.get_commit()
    assert (commit.id, commit.message) == (merged, "Merge 'other' into 'main'")
    assert commit.parents == [before, other.get_commit().id]
    assert commit.metadata == {".lakefs.merge.strategy": "default"}


def test_the_same_change_on_both_sides_is_no_conflict(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "theirs", {"both": "1"})
    put(main, "ours", {"both": "1"})
    other.merge_into(main)
    assert contents(main)["both"] == b"1"


@pytest.mark.parametrize("theirs", ["1", None])
def test_different_changes_of_one_path_conflict(main: lakefs.Branch, other: lakefs.Branch, theirs: str | None) -> None:
    put(other, "theirs", {"both": theirs, "theirs": "1"})
    put(main, "ours", {"both": "2"})
    before = main.get_commit().id
    with pytest.raises(ConflictException):
        other.merge_into(main)
    assert main.get_commit().id == before
    assert ("conflict", "both") in [(change.type, change.path) for change in main.diff("other")]


@pytest.mark.parametrize(("strategy", "winner"), [("source-wins", b"1"), ("dest-wins", b"2")])
def test_a_strategy_decides_a_conflict(main: lakefs.Branch, other: lakefs.Branch, strategy: str, winner: bytes) -> None:
    put(other, "theirs", {"both": "1", "theirs": "1"})
    put(main, "ours", {"both": "2"})
    other.merge_into(main, strategy=strategy)
    assert (contents(main)["both"], contents(main)["theirs"]) == (winner, b"1")
    assert main.get_commit().metadata == {".lakefs.merge.strategy": strategy}


def test_an_unknown_strategy_is_refused(main: lakefs.Branch, other: lakefs.Branch) -> None:
    with pytest.raises(BadRequestException, match="invalid merge strategy"):
        other.merge_into(main, strategy="newest-wins")


def test_a_merge_without_news_needs_to_be_allowed(main: lakefs.Branch, other: lakefs.Branch) -> None:
    with pytest.raises(BadRequestException, match="no changes"):
        other.merge_into(main)
    other.merge_into(main, allow_empty=True, message="empty")
    assert main.get_commit().message == "empty"


def test_a_squashed_merge_has_one_parent(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "theirs", {"theirs": "1"})
    before = main.get_commit().id
    other.merge_into(main, squash_merge=True, message="squashed", metadata={"by": "test"})
    commit = main.get_commit()
    assert commit.parents == [before]
    assert commit.metadata == {"by": "test", ".lakefs.merge.strategy": "default"}
    assert [found.message for found in main.log()] == ["squashed", "base", "Repository created"]


def test_a_dirty_destination_is_refused_and_a_dirty_source_is_not(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "theirs", {"theirs": "1"})
    main.object("draft").upload("1")
    with pytest.raises(BadRequestException, match="dirty branch"):
        other.merge_into(main)
    main.reset_changes()
    other.object("draft").upload("1")
    other.merge_into(main)
    assert "draft" not in contents(main)


def test_a_second_merge_takes_only_what_is_new(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "first", {"theirs": "1"})
    other.merge_into(main)
    put(main, "ours", {"theirs": "2"})
    put(other, "second", {"new": "1"})
    other.merge_into(main)
    assert (contents(main)["theirs"], contents(main)["new"]) == (b"2", b"1")


def test_a_missing_source_is_not_found(repository: lakefs.Repository, main: lakefs.Branch) -> None:
    with pytest.raises(NotFoundException):
        repository.ref("nowhere").merge_into(main)


def test_three_dots_leave_out_what_the_left_side_did(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "theirs", {"theirs": "11", "new": "1", "gone": None})
    put(main, "ours", {"ours": "2"})
    theirs = [("removed", "gone", 1), ("added", "new", 1), ("changed", "theirs", 2)]
    assert changes(main, "other") == theirs
    assert changes(main, "other", type="two_dot") == [
        ("removed", "gone", 1),
        ("added", "new", 1),
        ("changed", "ours", 1),
        ("changed", "theirs", 2),
    ]


def test_a_diff_is_listed_by_prefix_delimiter_and_page(main: lakefs.Branch, other: lakefs.Branch) -> None:
    put(other, "theirs", {"a/1": "1", "a/2": "1", "b": "1"})
    assert changes(main, "other", delimiter="/") == [("prefix_changed", "a/", None), ("added", "b", 1)]
    assert [path for _, path, _ in changes(main, "other", prefix="a/")] == ["a/1", "a/2"]
    assert [path for _, path, _ in changes(main, "other", amount=1)] == ["a/1", "a/2", "b"]


def test_a_diff_with_a_staging_area_shows_what_is_not_committed(main: lakefs.Branch, other: lakefs.Branch) -> None:
    other.object("draft").upload("1")
    assert changes(main, "other$", type="two_dot") == [("added", "draft", 1)]
    assert changes(main, "other", type="two_dot") == []
