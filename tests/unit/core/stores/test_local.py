"""The embedded version store: what a repository holds, and what its names and ids mean."""

import hashlib
import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from src.core.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from src.core.stores.base import Commit, Diff
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]

FILES = {
    "config.json": b"{}",
    "weights/model.safetensors": b"\x00" * 5000,
    "說明/讀我 🤖.md": "你好".encode(),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def blob_of(store: LocalStore, commit: Commit, path: str) -> Path:
    sha256 = next(entry.sha256 for entry in commit.files if entry.path == path)
    return store.root / "blobs" / "sha256" / sha256[:2] / sha256


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_round_trip(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant(FILES))
    store.checkout("repo", "main", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_another_process_would_see_the_same(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES), message="第一版", metadata={"來源": "hf"})
    assert LocalStore(store.root).get_commit("repo", "main") == commit


def test_commit_id_can_be_recomputed_by_a_stranger(store: LocalStore, plant: Plant) -> None:
    parent = store.upload("repo", plant({"a": b"1"}))
    commit = store.upload("repo", plant(FILES), message="訊息", metadata={"b": "2", "a": "1"})
    document = {
        "repo": "repo",
        "parents": [parent.id],
        "metadata": {"a": "1", "b": "2"},
        "message": "訊息",
        "files": [[p, hashlib.sha256(FILES[p]).hexdigest(), len(FILES[p])] for p in sorted(FILES)],
        "created_at": commit.created_at,
    }
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert commit.id == hashlib.sha256(text.encode()).hexdigest()


def test_a_commit_file_hashes_to_its_own_name(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    data = (store.root / "repos/repo/commits" / f"{commit.id}.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == commit.id


def test_digest_can_be_recomputed_from_the_blobs(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    blobs = {entry.path: blob_of(store, commit, entry.path).read_bytes() for entry in commit.files}
    rows = [[path, hashlib.sha256(data).hexdigest(), len(data)] for path, data in sorted(blobs.items())]
    manifest = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    assert commit.digest == "sha256:" + hashlib.sha256(manifest).hexdigest()


def test_one_byte_changes_id_and_digest(store: LocalStore, plant: Plant) -> None:
    before = store.upload("repo", plant(FILES))
    after = store.upload("repo", plant({**FILES, "config.json": b"[]"}))
    assert (before.id == after.id, before.digest == after.digest) == (False, False)


def test_identical_tree_makes_no_commit(store: LocalStore, plant: Plant) -> None:
    first = store.upload("repo", plant(FILES), message="first")
    assert store.upload("repo", plant(FILES), message="second") == first
    assert store.log("repo") == [first]


def test_blobs_are_read_only_and_shared_by_repositories(store: LocalStore, plant: Plant) -> None:
    one = store.upload("one", plant({"a": b"same"}))
    store.upload("two", plant({"b": b"same"}))
    blobs = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    assert blobs == [blob_of(store, one, "a")]
    assert stat.S_IMODE(blobs[0].stat().st_mode) == 0o444


def test_log_is_newest_first_and_bounded(store: LocalStore, plant: Plant) -> None:
    commits = [store.upload("repo", plant({"a": bytes([n])})) for n in range(4)]
    assert store.log("repo", limit=3) == commits[:0:-1]


def test_short_id_names_its_commit(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    assert store.get_commit("repo", commit.id[:7]) == store.get_commit("repo", commit.id) == commit


def test_ambiguous_short_id_is_refused(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    folder = store.root / "repos/repo/commits"
    (folder / f"{commit.id[:7]}{'0' * 57}.json").write_bytes(b"{}")
    with pytest.raises(InvalidInputError, match="more digits"):
        store.get_commit("repo", commit.id[:7])


@pytest.mark.parametrize("ref", ["nowhere", "0123456", "0" * 64, "abc12"])
def test_unknown_refs_are_not_found(store: LocalStore, plant: Plant, ref: str) -> None:
    store.upload("repo", plant(FILES))
    with pytest.raises(NotFoundError):
        store.get_commit("repo", ref)


def test_diff_sorts_what_changed(store: LocalStore, plant: Plant) -> None:
    left = store.upload("repo", plant({"kept": b"k", "gone": b"g", "new content": b"1"}))
    right = store.upload("repo", plant({"kept": b"k", "b": b"", "a": b"", "new content": b"2"}))
    assert store.diff("repo", left.id, right.id) == Diff(("a", "b"), ("gone",), ("new content",))


def test_new_repository_has_an_empty_main(store: LocalStore) -> None:
    repo = store.create_repo("repo")
    assert (store.list_repos(), store.list_branches("repo")) == ([repo], {"main": ""})
    with pytest.raises(NotFoundError, match="no commit yet"):
        store.get_commit("repo", "main")


def test_existing_repository_conflicts_unless_it_may_exist(store: LocalStore) -> None:
    repo = store.create_repo("repo")
    assert store.create_repo("repo", exist_ok=True) == repo
    with pytest.raises(ConflictError):
        store.create_repo("repo")


def test_branch_lives_and_dies(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    assert store.create_branch("repo", "dev", "main") == commit.id
    assert store.list_branches("repo") == {"dev": commit.id, "main": commit.id}
    store.delete_branch("repo", "dev")
    assert store.list_branches("repo") == {"main": commit.id}


def test_existing_and_default_branches_conflict(store: LocalStore, plant: Plant) -> None:
    store.upload("repo", plant(FILES))
    with pytest.raises(ConflictError, match="already"):
        store.create_branch("repo", "main", "main")
    with pytest.raises(ConflictError, match="default"):
        store.delete_branch("repo", "main")


def test_upload_to_a_new_branch_continues_from_main(store: LocalStore, plant: Plant) -> None:
    main = store.upload("repo", plant({"a": b"1"}))
    assert store.upload("repo", plant({"a": b"2"}), branch="dev").parents == (main.id,)
    assert store.upload("repo", plant({"a": b"1"}), branch="same") == main
    assert set(store.list_branches("repo")) == {"dev", "main", "same"}


@pytest.mark.parametrize("name", ["", "a", "Gemma", "a/b", "..", "../x", "-a", ".a", "a" * 64, "模型", "a\n", "a b"])
def test_bad_repository_names_are_refused(store: LocalStore, name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot name a repository"):
        store.create_repo(name)


def test_upper_case_is_refused_with_the_name_to_take(store: LocalStore) -> None:
    with pytest.raises(InvalidInputError, match="'google_gemma-2b'"):
        store.create_repo("Google/Gemma-2b")


@pytest.mark.parametrize("name", ["", "Dev", "a/b", "..", "../../x", ".a", "deadbeef", "0" * 64, "a" * 64])
def test_bad_branch_names_are_refused(store: LocalStore, plant: Plant, name: str) -> None:
    store.upload("repo", plant(FILES))
    with pytest.raises(InvalidInputError, match="cannot name a branch"):
        store.create_branch("repo", name, "main")


def test_verify_names_tampered_and_missing_files(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant({**FILES, "lost": b"lost"}))
    overwrite(blob_of(store, commit, "config.json"), b"[]")
    blob_of(store, commit, "lost").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json, lost") as caught:
        store.verify("repo", "main")
    assert caught.value.details["files"] == ["config.json", "lost"]


def test_verify_accepts_what_is_whole(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    assert store.verify("repo", commit.id[:10]) == commit


@pytest.mark.parametrize("damaged", ["repo.json", "refs/main", "commits"])
def test_what_went_missing_is_an_error_and_never_made_anew(store: LocalStore, plant: Plant, damaged: str) -> None:
    source = plant(FILES)
    commit = store.upload("repo", source)
    path = store.root / "repos/repo" / damaged
    (path / f"{commit.id}.json" if path.is_dir() else path).unlink()
    with pytest.raises(IntegrityError, match="restore it"):
        store.upload("repo", source)


@pytest.mark.parametrize("damaged", ["refs/main", "repo.json"])
def test_an_emptied_file_is_an_error(store: LocalStore, plant: Plant, damaged: str) -> None:
    store.upload("repo", plant(FILES))
    (store.root / "repos/repo" / damaged).write_bytes(b"")
    with pytest.raises(IntegrityError):
        store.list_branches("repo")


def test_a_tampered_commit_is_an_error(store: LocalStore, plant: Plant) -> None:
    commit = store.upload("repo", plant(FILES))
    path = store.root / "repos/repo/commits" / f"{commit.id}.json"
    path.write_bytes(path.read_bytes().replace(b"config", b"c0nfig"))
    with pytest.raises(IntegrityError, match="differs from its id"):
        store.get_commit("repo", "main")


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "a//b", "", "."])
def test_a_forged_commit_cannot_name_files_elsewhere(
    store: LocalStore, plant: Plant, tmp_path: Path, path: str
) -> None:
    commit = store.upload("repo", plant({"a": b""}))
    folder = store.root / "repos/repo"
    data = (folder / "commits" / f"{commit.id}.json").read_bytes().replace(b'"a"', json.dumps(path).encode())
    forged = hashlib.sha256(data).hexdigest()
    (folder / "commits" / f"{forged}.json").write_bytes(data)
    with pytest.raises(IntegrityError, match="impossible file"):
        store.checkout("repo", forged, tmp_path / "out")


def test_an_unusable_disk_is_unavailable(tmp_path: Path, plant: Plant) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailableError):
        LocalStore(tmp_path / "file" / "store").upload("repo", plant(FILES))
