"""What every version store keeps: the embedded one, and the one on lakeFS, fake or real."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from src.core.errors import IntegrityError, InvalidInputError, NotFoundError, StoreUnavailableError
from src.core.stores.base import VersionStore, content_digest
from tests.contract.version_stores import (
    SERVER_SETTINGS,
    Contender,
    FakeContender,
    Plant,
    contender,
    contents,
    entries,
    history,
    names_a_server,
)

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "weights/model-00001.safetensors": os.urandom(300_000),
    "weights/model-00002.safetensors": os.urandom(300_000),
    "empty": b"",
    "a name with  spaces/+plus&amp %25.txt": b"odd",
    "說明/讀我 🤖.md": "你好".encode(),
}


class StoppedError(Exception):
    """What a caller's progress raises to break an upload off."""


def stop_midway(done: int, total: int) -> None:
    if done >= total // 2:
        raise StoppedError


def test_a_real_server_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not names_a_server(os.environ):
        pytest.skip(f"set {', '.join(SERVER_SETTINGS)} to run all of this against a real lakeFS too")
    with contender("lakefs-server", tmp_path, monkeypatch) as found:
        assert found.open().create_repo(found.repo).name == found.repo


# ---------------------------------------------------------------- what goes in comes out


def test_a_checkout_holds_what_was_uploaded(store: VersionStore, repo: str, plant: Plant, tmp_path: Path) -> None:
    commit = store.upload(repo, plant(FILES))
    assert store.checkout(repo, commit.id, tmp_path / "out") == commit
    assert contents(tmp_path / "out") == FILES
    assert commit.files == entries(FILES)


def test_checked_out_files_are_read_only(store: VersionStore, repo: str, plant: Plant, tmp_path: Path) -> None:
    store.upload(repo, plant(FILES))
    store.checkout(repo, "main", tmp_path / "out")
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_file()} == {0o444}


def test_branch_full_and_short_id_name_the_same_commit(
    store: VersionStore, repo: str, plant: Plant, tmp_path: Path
) -> None:
    commit = store.upload(repo, plant(FILES))
    assert (len(commit.id), int(commit.id, 16) > 0) == (64, True)
    for number, ref in enumerate(("main", commit.id, commit.id[:7], commit.id[:12])):
        assert store.get_commit(repo, ref) == commit
        store.checkout(repo, ref, tmp_path / f"out-{number}")
        assert contents(tmp_path / f"out-{number}") == FILES


def test_the_content_digest_is_that_of_the_folder_whatever_the_store(
    store: VersionStore, repo: str, plant: Plant
) -> None:
    assert store.upload(repo, plant(FILES)).digest == content_digest(entries(FILES))


def test_message_and_metadata_come_back(on: Contender, store: VersionStore, repo: str, plant: Plant) -> None:
    metadata = {"source": "huggingface", "來源": "模型 🤖", "empty": ""}
    commit = store.upload(repo, plant(FILES), message='第一版: "first"', metadata=metadata)
    assert (commit.message, commit.metadata) == ('第一版: "first"', metadata)
    assert on.open().get_commit(repo, commit.id) == commit


def test_files_that_vanished_are_gone_from_the_next_commit(store: VersionStore, repo: str, plant: Plant) -> None:
    store.upload(repo, plant(FILES))
    fewer = {"config.json": b"{}", "empty/now a folder": b""}
    assert store.upload(repo, plant(fewer)).files == entries(fewer)


def test_progress_ends_at_the_total(store: VersionStore, repo: str, plant: Plant, tmp_path: Path) -> None:
    total = sum(map(len, FILES.values()))
    for work in (
        lambda progress: store.upload(repo, plant(FILES), progress=progress),
        lambda progress: store.upload(repo, plant(FILES), progress=progress),
        lambda progress: store.checkout(repo, "main", tmp_path / "out", progress=progress),
        lambda progress: store.checkout(repo, "main", tmp_path / "out", progress=progress),
    ):
        calls: list[tuple[int, int]] = []
        work(lambda done, of, calls=calls: calls.append((done, of)))
        assert calls[-1] == (total, total)
        assert calls == sorted(calls)


@pytest.mark.parametrize(("limit", "expected"), [(0, b""), (5, b'{"mod'), (1000, FILES["config.json"])])
def test_reading_gives_the_beginning_of_a_file(
    store: VersionStore, repo: str, plant: Plant, limit: int, expected: bytes
) -> None:
    commit = store.upload(repo, plant(FILES))
    for ref in ("main", commit.id, commit.id[:10]):
        assert store.read(repo, ref, "config.json", limit=limit) == expected
    assert store.read(repo, commit.id, "empty", limit=10) == b""


# ---------------------------------------------------------------- only what changed is taken


def test_the_same_files_again_make_no_commit_and_send_nothing(
    on: Contender, store: VersionStore, repo: str, plant: Plant
) -> None:
    first = store.upload(repo, plant(FILES), message="first")
    taken = on.bytes_taken()
    assert store.upload(repo, plant(FILES), message="second") == first
    assert (on.bytes_taken(), history(store, repo)) == (taken, [first])


def test_one_changed_file_is_all_that_is_sent(on: Contender, store: VersionStore, repo: str, plant: Plant) -> None:
    first = store.upload(repo, plant(FILES))
    taken = on.bytes_taken()
    second = store.upload(repo, plant({**FILES, "config.json": b"changed"}))
    assert on.bytes_taken() - taken == len(b"changed")
    assert (second.parents, second.files) == ((first.id,), entries({**FILES, "config.json": b"changed"}))


def test_an_upload_to_a_new_branch_continues_from_main(
    on: Contender, store: VersionStore, repo: str, plant: Plant
) -> None:
    main = store.upload(repo, plant(FILES))
    taken = on.bytes_taken()
    dev = store.upload(repo, plant({**FILES, "new": b"12345"}), branch="dev", message="on dev", metadata={"a": "b"})
    assert on.bytes_taken() - taken == 5
    assert (dev.parents, dev.message, dev.metadata) == ((main.id,), "on dev", {"a": "b"})
    assert store.upload(repo, plant(FILES), branch="same") == main
    assert store.list_branches(repo) == {"dev": dev.id, "main": main.id, "same": main.id}


# ---------------------------------------------------------------- at once


def test_concurrent_uploads_to_one_branch_all_land_with_exactly_their_trees(
    on: Contender, repo: str, plant: Plant
) -> None:
    trees = [{"shared": b"%d" % n, f"own-{n}": b"x" * n, "same": b"same"} for n in range(8)]
    folders = [plant(tree, f"source-{n}") for n, tree in enumerate(trees)]
    stores = [on.open() for _ in trees]
    with ThreadPoolExecutor(len(trees)) as pool:
        commits = list(pool.map(lambda store, folder: store.upload(repo, folder), stores, folders))
    assert [commit.files for commit in commits] == [entries(tree) for tree in trees]
    assert {commit.id for commit in history(stores[0], repo)} == {commit.id for commit in commits}
    assert on.unfinished() == []


def test_concurrent_uploads_of_one_folder_make_one_commit(on: Contender, repo: str, plant: Plant) -> None:
    source = plant(FILES)
    stores = [on.open() for _ in range(4)]
    with ThreadPoolExecutor(len(stores)) as pool:
        commits = list(pool.map(lambda store: store.upload(repo, source), stores))
    assert history(stores[0], repo) == commits[:1]


def test_concurrent_uploads_from_several_processes_all_land(on: Contender, repo: str, plant: Plant) -> None:
    store = on.open()
    store.upload(repo, plant({"first": b""}))
    trees = [{"a": b"%d" % n, f"own-{n}": b""} for n in range(2)]
    script = (
        "import sys; from pathlib import Path\n"
        "from src.core.stores.lakefs import LakefsStore; from src.core.stores.local import LocalStore\n"
        f"store = {on.expression}\n"
        "print(store.upload(sys.argv[1], Path(sys.argv[2])).id)\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, repo, str(plant(tree, f"source-{n}"))], cwd=ROOT, stdout=subprocess.PIPE
        )
        for n, tree in enumerate(trees)
    ]
    ids = [child.communicate(timeout=60)[0].decode().strip() for child in children]
    assert [store.get_commit(repo, commit_id).files for commit_id in ids] == [entries(tree) for tree in trees]
    assert {commit.id for commit in history(store, repo)} >= set(ids)


# ---------------------------------------------------------------- whole or not at all


def test_an_upload_broken_off_leaves_nothing_and_a_retry_works(
    on: Contender, store: VersionStore, repo: str, plant: Plant
) -> None:
    first = store.upload(repo, plant({"a": b"before"}))
    for branch in ("main", "new"):
        with pytest.raises(StoppedError):
            store.upload(repo, plant(FILES), branch=branch, progress=stop_midway)
    assert (store.list_branches(repo), history(store, repo), on.unfinished()) == ({"main": first.id}, [first], [])
    assert store.upload(repo, plant(FILES)).files == entries(FILES)


def test_a_checkout_broken_off_leaves_nothing_and_a_retry_works(
    store: VersionStore, repo: str, plant: Plant, tmp_path: Path
) -> None:
    store.upload(repo, plant(FILES))
    with pytest.raises(StoppedError):
        store.checkout(repo, "main", tmp_path / "here/out", progress=stop_midway)
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".out.checkout.lock"]
    store.checkout(repo, "main", tmp_path / "here/out")
    assert contents(tmp_path / "here/out") == FILES


def test_a_folder_that_cannot_be_committed_leaves_nothing(store: VersionStore, repo: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for source, error in ((tmp_path / "nowhere", NotFoundError), (tmp_path / "nothing", InvalidInputError)):
        with pytest.raises(error):
            store.upload(repo, source)
    assert repo not in {found.name for found in store.list_repos()}


# ---------------------------------------------------------------- damage


def test_a_flipped_byte_is_named_by_verification_and_never_checked_out(
    on: Contender, store: VersionStore, repo: str, plant: Plant, tmp_path: Path
) -> None:
    commit = store.upload(repo, plant(FILES))
    assert store.verify(repo, "main") == commit
    on.flip_byte(commit, "weights/model-00002.safetensors")
    for work in (
        lambda: store.verify(repo, commit.id),
        lambda: store.checkout(repo, commit.id, tmp_path / "here/out"),
        lambda: store.read(repo, commit.id, "weights/model-00002.safetensors", limit=1_000_000),
    ):
        with pytest.raises(IntegrityError, match="model-00002") as caught:
            work()
        assert caught.value.details["files"] == ["weights/model-00002.safetensors"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".out.checkout.lock"]


def test_an_edited_checkout_never_reaches_the_store(
    store: VersionStore, repo: str, plant: Plant, tmp_path: Path
) -> None:
    commit = store.upload(repo, plant(FILES))
    path = tmp_path / "out/config.json"
    store.checkout(repo, commit.id, tmp_path / "out")
    path.unlink()
    path.write_bytes(b"edited")
    assert store.verify(repo, commit.id) == commit
    store.checkout(repo, commit.id, tmp_path / "out")
    assert path.read_bytes() == FILES["config.json"]


# ---------------------------------------------------------------- garbage


def test_garbage_collection_keeps_what_branches_and_registered_commits_reach(
    on: Contender, store: VersionStore, repo: str, plant: Plant, tmp_path: Path
) -> None:
    first = store.upload(repo, plant(FILES))
    registered = store.upload(repo, plant({**FILES, "registered": b"r"}), branch="dev")
    last = store.upload(repo, plant({"a": b"1"}))
    store.delete_branch(repo, "dev")
    on.leave_garbage(plant({"abandoned": b"a" * 1000}))
    assert store.collect_garbage([(repo, registered.id)], older_than=0).removed > 0
    assert on.unfinished() == []
    for number, commit in enumerate((first, registered, last)):
        assert on.open().checkout(repo, commit.id, tmp_path / f"out-{number}") == commit
    assert store.collect_garbage([(repo, registered.id)], older_than=0).removed == 0


def test_garbage_collection_leaves_the_young_alone(on: Contender, store: VersionStore, repo: str, plant: Plant) -> None:
    store.upload(repo, plant(FILES))
    on.leave_garbage(plant({"abandoned": b"a"}))
    assert store.collect_garbage(older_than=3600).removed == 0


# ---------------------------------------------------------------- the server


def test_a_store_that_answers_pings(store: VersionStore) -> None:
    store.ping()


@pytest.mark.parametrize("on", ["lakefs-fake"], indirect=True)
@pytest.mark.parametrize(
    "operation",
    ["create_branch", "upload_object", "delete_objects", "commit", "log_commits", "list_objects", "merge_into_branch"],
)
def test_a_server_that_fails_leaves_nothing_and_a_retry_works(
    on: FakeContender, store: VersionStore, repo: str, plant: Plant, operation: str
) -> None:
    first = store.upload(repo, plant({"a": b"before"}))
    on.server.fail(operation, status=500, times=None)
    with pytest.raises(StoreUnavailableError):
        on.open().upload(repo, plant(FILES))
    on.server.clear_faults()
    assert (store.list_branches(repo), history(store, repo), on.unfinished()) == ({"main": first.id}, [first], [])
    assert store.upload(repo, plant(FILES)).files == entries(FILES)


@pytest.mark.parametrize("on", ["lakefs-fake"], indirect=True)
def test_a_connection_that_keeps_breaking_leaves_nothing_and_a_retry_works(
    on: FakeContender, store: VersionStore, repo: str, plant: Plant
) -> None:
    first = store.upload(repo, plant({"a": b"before"}))
    on.server.cut_request(after_bytes=100_000, times=None)
    with pytest.raises(StoreUnavailableError):
        store.upload(repo, plant(FILES))
    on.server.clear_faults()
    assert (store.list_branches(repo), history(store, repo), on.unfinished()) == ({"main": first.id}, [first], [])
    assert store.upload(repo, plant(FILES)).files == entries(FILES)
