"""Uploads to lakeFS: what a crash, a lost answer or somebody else's commit in between does to them."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import ConflictError, IntegrityError, NotFoundError, StoreUnavailableError
from src.core.stores import stat_cache
from src.core.stores.lakefs import LakefsStore, folder, patience, turns, upload
from src.core.stores.lakefs.objects import Objects
from src.core.stores.lakefs.server import Server
from src.testing.fake_lakefs import FakeLakefs
from tests.unit.core.stores.lakefs.looking import (
    ROOT,
    OpenStore,
    Plant,
    client_of,
    entries,
    own_branches,
    put,
)

FILES = {f"part-{number}": os.urandom(100_000) for number in range(8)}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.01)


def folder_of(tmp_path: Path, name: str, files: Mapping[str, bytes]) -> Path:
    (tmp_path / name).mkdir()
    for path, data in files.items():
        (tmp_path / name / path).write_bytes(data)
    return tmp_path / name


def sent(server: FakeLakefs) -> int:
    """Counts the bytes of objects that the server has received, and forgets them."""
    count = sum(request.bytes_received for request in server.requests if request.operation == "upload_object")
    server.requests.clear()
    return count


# ---------------------------------------------------------------- killed, and begun again


def test_an_upload_that_was_killed_goes_on_where_it_was(
    server: FakeLakefs, store: LakefsStore, plant: Plant, tmp_path: Path
) -> None:
    first = store.upload("repo", plant({"part-0": b"before"}))
    source = plant(FILES)
    script = (
        "import os, sys; from pathlib import Path; from src.core.stores.lakefs import LakefsStore\n"
        f"store = LakefsStore({server.url!r}, {server.access_key_id!r}, {server.secret_access_key!r},\n"
        "                    cache_dir=Path(sys.argv[1]), parallel=1)\n"
        "kill = lambda done, total: os._exit(9) if done >= total // 2 else None\n"
        "store.upload('repo', Path(sys.argv[2]), progress=kill)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), str(source)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 9
    assert (store.list_branches("repo"), len(own_branches(store, "repo"))) == ({"main": first.id}, 1)
    before = sent(server)
    commit = store.upload("repo", source)
    assert (commit.files, commit.parents, own_branches(store, "repo")) == (entries(FILES), (first.id,), [])
    assert (before, sent(server)) == (pytest.approx(406_000, abs=100_000), pytest.approx(400_000, abs=100_000))


@pytest.mark.parametrize("branch", ["main", "new"])
def test_what_was_left_behind_is_taken_up_though_main_has_moved(
    server: FakeLakefs, store: LakefsStore, plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, branch: str
) -> None:
    store.upload("repo", plant({"a": b"1", "b": b"1"}))
    source = folder_of(tmp_path, "wanted", FILES)
    with monkeypatch.context() as dying:
        dying.setattr(upload, "drop_branch", lambda *args: None)
        dying.setattr(Server, "create_branch", _refusing_after(1, Server.create_branch))
        with pytest.raises(KeyboardInterrupt):
            store.upload("repo", source, branch=branch)
    moved = store.upload("repo", plant({"a": b"2", "c": b"2"}))
    sent(server)
    commit = store.upload("repo", source, branch=branch)
    assert (commit.files, sent(server), own_branches(store, "repo")) == (entries(FILES), 0, [])
    assert commit.parents == (moved.id,)
    assert store.list_branches("repo")[branch] == commit.id


def _refusing_after(count: int, original: Any) -> Any:
    calls = []

    def create(*args: Any, **options: Any) -> None:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(args)
        original(*args, **options)

    return create


def test_another_machine_leaves_the_leftover_alone(
    store: LakefsStore, open_store: OpenStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload("repo", plant({"a": b"1"}))
    source = plant(FILES)
    with monkeypatch.context() as dying:
        dying.setattr(upload, "drop_branch", lambda *args: None)
        with pytest.raises(KeyboardInterrupt):
            store.upload("repo", source, progress=_interrupt)
    (left,) = own_branches(store, "repo")
    open_store("another machine").upload("repo", source)
    assert own_branches(store, "repo") == [left]


def _interrupt(done: int, total: int) -> None:
    if done:
        raise KeyboardInterrupt


# ---------------------------------------------------------------- the network and the server


def test_a_broken_connection_is_tried_again(server: FakeLakefs, store: LakefsStore, plant: Plant) -> None:
    calls: list[tuple[int, int]] = []
    server.cut_request(after_bytes=50_000, times=2)
    commit = store.upload("repo", plant(FILES), progress=lambda done, total: calls.append((done, total)))
    assert (commit.files, calls == sorted(calls), calls[-1]) == (entries(FILES), True, (800_000, 800_000))


@pytest.mark.parametrize(
    "operation", ["create_branch", "merge_into_branch", "delete_branch", "upload_object", "delete_objects"]
)
@pytest.mark.parametrize("branch", ["main", "new"])
def test_a_lost_answer_leaves_one_commit_and_no_branch(
    server: FakeLakefs, store: LakefsStore, plant: Plant, operation: str, branch: str
) -> None:
    first = store.upload("repo", plant({"a": b"before"}))
    server.lose_answer(operation)
    source = plant(FILES)
    try:
        store.upload("repo", source, branch=branch)
    except StoreUnavailableError:
        assert (store.list_branches("repo"), own_branches(store, "repo")) == ({"main": first.id}, [])
    commit = store.upload("repo", source, branch=branch)
    assert [one.files for one in store.log("repo", branch, limit=2)] == [entries(FILES), first.files]
    assert (store.list_branches("repo")[branch], own_branches(store, "repo")) == (commit.id, [])


def test_a_branch_that_cannot_be_deleted_is_said_and_swept_later(
    server: FakeLakefs, store: LakefsStore, plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("delete_branch", times=None)
    commit = store.upload("repo", plant(FILES))
    server.clear_faults()
    assert "left behind until garbage is collected" in caplog.text
    assert len(own_branches(store, "repo")) == 2
    assert store.collect_garbage(older_than=-5).removed == 2
    assert (own_branches(store, "repo"), store.list_branches("repo")) == ([], {"main": commit.id})


def test_a_refused_file_that_is_very_large_says_why_that_may_be(
    server: FakeLakefs, store: LakefsStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_OFTEN_TOO_LARGE", 1000)
    server.fail("upload_object", status=500, times=None)
    with pytest.raises(StoreUnavailableError, match="larger than 5 GB"):
        store.upload("repo", plant(FILES))


def test_bytes_that_arrive_otherwise_are_named(
    store: LakefsStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload("repo", plant({"a": b"1"}))
    original = Objects.send
    monkeypatch.setattr(Objects, "send", lambda *args: original(*args) and "0" * 32)
    with pytest.raises(IntegrityError, match="part-0"):
        store.upload("repo", plant({"part-0": b"x"}))
    assert own_branches(store, "repo") == []


# ---------------------------------------------------------------- files that change meanwhile


@pytest.mark.parametrize("change", [b"same size" * 11_111 + b"!", b"shorter"])
def test_a_file_written_to_while_it_is_sent_conflicts(store: LakefsStore, plant: Plant, change: bytes) -> None:
    source = plant(FILES)
    store.create_repo("repo")

    def rewrite(done: int, total: int) -> None:
        for path in source.iterdir() if done else ():
            path.write_bytes(change)

    with pytest.raises(ConflictError, match="was written to while it was read"):
        store.upload("repo", source, progress=rewrite)
    assert (own_branches(store, "repo"), store.log("repo")[0].files) == ([], ())


def test_a_file_written_to_while_it_is_hashed_conflicts(store: LakefsStore, plant: Plant) -> None:
    source = plant(FILES)

    def append(done: int, total: int) -> None:
        with open(source / "part-7", "ab") as file:
            file.write(b"more")

    with pytest.raises(ConflictError, match="part-7"):
        store.upload("repo", source, progress=append)


def test_an_unreadable_folder_is_refused_before_a_repository_is_made(store: LakefsStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.upload("repo", tmp_path / "nowhere")
    assert store.list_repos() == []


# ---------------------------------------------------------------- others on the same branch


def test_machines_that_upload_at_once_never_mix_their_trees(
    store: LakefsStore, open_store: OpenStore, tmp_path: Path
) -> None:
    trees = [{"shared": b"%d" % n, f"own-{n}": b"", "same": b""} for n in range(5)]
    folders = [folder_of(tmp_path, f"source-{n}", tree) for n, tree in enumerate(trees)]
    stores = [open_store(f"machine-{n}") for n in range(5)]
    with ThreadPoolExecutor(5) as pool:
        commits = list(pool.map(lambda one, folder: one.upload("repo", folder), stores, folders))
    assert [commit.files for commit in commits] == [entries(tree) for tree in trees]
    log = store.log("repo")
    assert {commit.id for commit in log[:-1]} == {commit.id for commit in commits}
    assert (log[-1].message, own_branches(store, "repo")) == ("Repository created", [])


@pytest.mark.parametrize("path", ["theirs", "part-0", "gone"])
def test_a_commit_made_by_hand_in_between_does_not_get_mixed_in(
    server: FakeLakefs, store: LakefsStore, plant: Plant, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    store.upload("repo", plant({"part-0": b"before", "gone": b"before", "kept": b"kept"}))
    original, done = Server.merge, []

    def merge(self: Server, repo: str, source: str, into: str, *args: Any, **options: Any) -> Any:
        if into == "main" and not done:
            done.append(put(store, "repo", path, b"by hand"))
        return original(self, repo, source, into, *args, **options)

    monkeypatch.setattr(Server, "merge", merge)
    wanted = {"part-0": b"after", "kept": b"kept", "new": b""}
    commit = store.upload("repo", plant(wanted))
    assert (commit.files, store.get_commit("repo", "main")) == (entries(wanted), commit)
    assert "by hand" in [one.message for one in store.log("repo")]
    assert own_branches(store, "repo") == []


def test_a_branch_with_uncommitted_changes_is_left_alone(store: LakefsStore, plant: Plant) -> None:
    first = store.upload("repo", plant({"a": b"1"}))
    put(store, "repo", "draft", b"not yet", commit=False)
    for work in (
        lambda: store.upload("repo", plant(FILES)),
        lambda: store.merge("repo", store.upload("repo", plant({"a": b"2"}), branch="dev").id, "main"),
    ):
        with pytest.raises(ConflictError, match="has not committed"):
            work()
    assert (store.list_branches("repo")["main"], own_branches(store, "repo")) == (first.id, [])


def test_a_turn_that_somebody_died_in_is_taken_over(
    store: LakefsStore, plant: Plant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lakefs_sdk.models.branch_creation import BranchCreation

    monkeypatch.setattr(turns, "_DEAD_AFTER", 0.3)
    store.upload("repo", plant({"a": b"1"}))
    client_of(store).branches_api.create_branch("repo", BranchCreation(name="aiml-turn-main", source="main"))
    began = time.monotonic()
    commit = store.upload("repo", plant(FILES))
    assert (commit.files, time.monotonic() - began > 0.3) == (entries(FILES), True)
    assert "left behind by somebody who died" in caplog.text


def test_uploads_under_way_are_not_listed_as_branches(store: LakefsStore, plant: Plant) -> None:
    first = store.upload("repo", plant({"a": b"1"}))
    seen: list[dict[str, str]] = []
    store.upload("repo", plant(FILES), progress=lambda done, total: seen.append(store.list_branches("repo")))
    assert all(branches == {"main": first.id} for branches in seen)
    assert len(seen) > len(FILES)


def test_garbage_collection_leaves_branches_of_others_alone(store: LakefsStore, plant: Plant) -> None:
    from lakefs_sdk.models.branch_creation import BranchCreation

    store.upload("repo", plant({"a": b"1"}))
    client_of(store).branches_api.create_branch("repo", BranchCreation(name="aim", source="main", hidden=True))
    assert store.collect_garbage(older_than=0).removed == 0


def test_a_stat_cache_spares_reading_what_was_read(
    store: LakefsStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plant(FILES)
    monkeypatch.setattr(stat_cache, "RACY_NS", -(10**12))  # what was touched just now is believed, too
    store.upload("repo", source)
    monkeypatch.setattr(folder, "sha256_of", None)
    assert store.upload("repo", source).files == entries(FILES)
