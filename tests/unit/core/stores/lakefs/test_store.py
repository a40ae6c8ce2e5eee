"""The lakeFS store: what it asks of the server, what it remembers, and what it does with others' repositories.

What both stores promise is in `tests/contract/test_version_store.py`.
"""

import http.server
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from src.core.stores.lakefs import LakefsStore, connection
from src.testing.fake_lakefs import FakeLakefs
from tests.unit.core.stores.lakefs.looking import ROOT, OpenStore, Plant, asked, client_of, contents, put

FILES = {"config.json": b"{}", "weights/model.safetensors": b"\x07" * 5000, "說明/讀我 🤖.md": "你好".encode()}


# ---------------------------------------------------------------- the server


def test_making_a_store_asks_nothing_and_imports_no_client() -> None:
    script = (
        "import sys; from pathlib import Path; from src.core.stores.lakefs import LakefsStore\n"
        "LakefsStore('http://nowhere.invalid', 'key', 'secret', cache_dir=Path('/nowhere'))\n"
        "assert not {'lakefs', 'lakefs_sdk', 'urllib3', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_a_wrong_key_names_the_settings(open_store: OpenStore, wrong: str) -> None:
    store = open_store(**{wrong: "wrong"})
    with pytest.raises(ConfigurationError, match=r"LAKEFS_ACCESS_KEY_ID and LAKEFS_SECRET_ACCESS_KEY"):
        store.list_repos()
    with pytest.raises(StoreUnavailableError, match="LAKEFS_ACCESS_KEY_ID"):
        store.ping()


def test_a_server_that_is_away_is_named_with_the_way_to_look(server: FakeLakefs, store: LakefsStore) -> None:
    server.stop()
    for work in (store.ping, store.list_repos, lambda: store.get_commit("repo", "main")):
        with pytest.raises(StoreUnavailableError, match="healthcheck") as caught:
            work()
        assert server.url in caught.value.message


def test_something_else_at_the_address_is_told_from_lakefs(open_store: OpenStore) -> None:
    class Website(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", "13")
            self.end_headers()
            self.wfile.write(b"<html></html>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Website) as website:
        threading.Thread(target=website.serve_forever, daemon=True).start()
        store = open_store(endpoint=f"http://127.0.0.1:{website.server_port}")
        for work in (store.ping, store.list_repos, lambda: store.get_commit("repo", "main")):
            with pytest.raises(StoreUnavailableError, match="check LAKEFS_ENDPOINT"):
                work()
        website.shutdown()


def test_an_answer_that_does_not_come_is_unavailable(server: FakeLakefs, open_store: OpenStore) -> None:
    server.delay(60, "list_repositories", times=None)
    with pytest.raises(StoreUnavailableError, match="timed out"):
        open_store(timeout=0.1).list_repos()


# ---------------------------------------------------------------- repositories and names


@pytest.mark.parametrize("prefix", ["", "local://bucket", "local://bucket/models/"])
def test_a_repository_gets_a_namespace_below_the_prefix(open_store: OpenStore, prefix: str) -> None:
    store = open_store(namespace_prefix=prefix)
    store.create_repo("models")
    found = client_of(store).repositories_api.get_repository("models")
    assert found.storage_namespace == {"": "local://models", "local://bucket": "local://bucket/models"}.get(
        prefix, "local://bucket/models/models"
    )


@pytest.mark.parametrize("prefix", ["bucket/models", "s3://not-this-servers"])
def test_a_namespace_that_cannot_be_used_names_the_setting(open_store: OpenStore, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="AIML_LAKEFS__STORAGE_NAMESPACE"):
        open_store(namespace_prefix=prefix).create_repo("models")


def test_a_repository_can_be_made_again_after_its_deletion(server: FakeLakefs, tmp_path: Path) -> None:
    with FakeLakefs(deletion_seconds=0) as forgetful:
        store = LakefsStore(
            forgetful.url, forgetful.access_key_id, forgetful.secret_access_key, cache_dir=tmp_path / "cache"
        )
        store.create_repo("models")
        client_of(store).repositories_api.delete_repository("models")
        assert store.create_repo("models").name == "models"


@pytest.mark.parametrize("name", ["ab", "google_gemma-2b", "qwen3.1"])
def test_repository_names_that_only_the_embedded_store_takes_are_refused(store: LakefsStore, name: str) -> None:
    with pytest.raises(InvalidInputError, match="on lakeFS"):
        store.create_repo(name)


def test_a_refused_repository_name_comes_with_one_to_take(store: LakefsStore) -> None:
    with pytest.raises(InvalidInputError, match="'google-gemma-2b'"):
        store.create_repo("Google_Gemma.2b")


@pytest.mark.parametrize("name", ["v1.0", "aiml-upload-x", "aiml-turn-main"])
def test_branch_names_that_lakefs_or_this_store_needs_are_refused(store: LakefsStore, plant: Plant, name: str) -> None:
    store.upload("repo", plant(FILES))
    with pytest.raises(InvalidInputError, match="cannot name a branch on lakeFS"):
        store.create_branch("repo", name, "main")


def test_branches_and_tags_of_others_are_read_under_their_own_names(store: LakefsStore, plant: Plant) -> None:
    from lakefs_sdk.models.branch_creation import BranchCreation
    from lakefs_sdk.models.tag_creation import TagCreation

    commit = store.upload("repo", plant(FILES))
    client = client_of(store)
    client.branches_api.create_branch("repo", BranchCreation(name="Feature_X", source="main"))
    client.tags_api.create_tag("repo", TagCreation(id="v1", ref="main"))
    assert [store.get_commit("repo", ref) for ref in ("Feature_X", "v1")] == [commit, commit]


@pytest.mark.parametrize("ref", ["", "main~1", "main@", "a/b", "../x"])
def test_ref_expressions_are_refused(store: LakefsStore, plant: Plant, ref: str) -> None:
    store.upload("repo", plant(FILES))
    with pytest.raises(InvalidInputError, match="cannot name a branch, a tag or a commit"):
        store.get_commit("repo", ref)


def test_listings_go_through_every_page(store: LakefsStore, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAGE", 2)
    commits = [store.upload("repo", plant({f"{n}-{m}": b"" for m in range(5)})) for n in range(5)]
    for number in range(5):
        store.create_branch("repo", f"branch-{number}", "main")
        store.create_repo(f"repo-{number}")
    assert len(store.get_commit("repo", "main").files) == 5
    assert store.log("repo", limit=3) == commits[:1:-1]
    assert len(store.log("repo")) == 6
    assert (len(store.list_branches("repo")), len(store.list_repos())) == (6, 6)


# ---------------------------------------------------------------- what is asked, and what is remembered


def test_an_unchanged_folder_costs_three_small_requests(server: FakeLakefs, store: LakefsStore, plant: Plant) -> None:
    source = plant(FILES)
    store.upload("repo", source)
    asked(server)
    store.upload("repo", source)
    assert sum(asked(server).values()) == 3


def test_an_intact_checkout_of_a_full_id_asks_nothing(
    server: FakeLakefs, open_store: OpenStore, plant: Plant, tmp_path: Path
) -> None:
    commit = open_store("elsewhere").upload("repo", plant(FILES))
    open_store().checkout("repo", commit.id, tmp_path / "out")
    asked(server)
    assert open_store().checkout("repo", commit.id, tmp_path / "out") == commit
    assert asked(server) == {}
    open_store().checkout("repo", "main", tmp_path / "out")
    assert asked(server)["get_object"] == 0


def test_an_intact_checkout_works_while_the_server_is_away(
    server: FakeLakefs, store: LakefsStore, plant: Plant, tmp_path: Path
) -> None:
    commit = store.upload("repo", plant(FILES))
    store.checkout("repo", commit.id, tmp_path / "out")
    server.stop()
    assert store.checkout("repo", commit.id, tmp_path / "out") == commit
    (tmp_path / "out/config.json").unlink()
    with pytest.raises(StoreUnavailableError):
        store.checkout("repo", commit.id, tmp_path / "out")


def test_a_spoilt_memory_of_a_tree_costs_only_time(store: LakefsStore, plant: Plant, tmp_path: Path) -> None:
    commit = store.upload("repo", plant(FILES))
    (note,) = (tmp_path / "cache/commits/repo").glob(f"{commit.id}.json")
    for spoilt in (b"", b"\xff\n{}", note.read_bytes().replace(b"config", b"c0nfig")):
        note.write_bytes(spoilt)
        assert store.checkout("repo", commit.id, tmp_path / "out") == commit
    assert contents(tmp_path / "out") == FILES


def test_a_tree_is_listed_once(server: FakeLakefs, open_store: OpenStore, plant: Plant) -> None:
    for number in range(3):
        open_store("elsewhere").upload("repo", plant({"a": bytes([number])}))
    asked(server)
    open_store().log("repo")
    assert asked(server)["list_objects"] == 4
    open_store().log("repo")
    assert asked(server)["list_objects"] == 0


def test_garbage_collection_forgets_trees_that_nobody_keeps(
    server: FakeLakefs, store: LakefsStore, plant: Plant, tmp_path: Path
) -> None:
    kept = store.upload("repo", plant({"a": b"1"}))
    other = store.upload("repo", plant({"a": b"2"}))
    store.collect_garbage([("repo", kept.id)], older_than=0)
    assert {path.stem for path in (tmp_path / "cache/commits").rglob("*.json")} == {kept.id}
    assert store.get_commit("repo", "main") == other


# ---------------------------------------------------------------- objects of others


def test_a_file_of_somebody_else_is_read_once_for_its_digest(
    server: FakeLakefs, open_store: OpenStore, plant: Plant, tmp_path: Path
) -> None:
    store = open_store()
    store.upload("repo", plant({"ours": b"1"}))
    put(store, "repo", "theirs", b"by hand")
    put(store, "repo", "later", b"")
    asked(server)
    commit = store.get_commit("repo", "main")
    assert [(entry.path, entry.size) for entry in commit.files] == [("later", 0), ("ours", 1), ("theirs", 7)]
    assert asked(server)["get_object"] == 2
    assert open_store().diff("repo", commit.id, commit.parents[0]).removed == ("later",)
    assert asked(server)["get_object"] == 0
    store.checkout("repo", commit.id, tmp_path / "out")
    assert contents(tmp_path / "out") == {"ours": b"1", "theirs": b"by hand", "later": b""}


def test_a_log_reads_no_file_of_somebody_else(server: FakeLakefs, store: LakefsStore, plant: Plant) -> None:
    store.upload("repo", plant({"ours": b"1"}))
    put(store, "repo", "theirs", b"by hand")
    asked(server)
    newest = store.log("repo")[0]
    assert {entry.path: bool(entry.sha256) for entry in newest.files} == {"ours": True, "theirs": False}
    assert asked(server)["get_object"] == 0
    assert all(entry.sha256 for entry in store.get_commit("repo", newest.id).files)


def test_uncommitted_changes_of_others_are_not_seen(store: LakefsStore, plant: Plant, tmp_path: Path) -> None:
    commit = store.upload("repo", plant(FILES))
    put(store, "repo", "draft", b"not yet", commit=False)
    store.checkout("repo", "main", tmp_path / "out")
    assert (store.get_commit("repo", "main"), contents(tmp_path / "out")) == (commit, FILES)
    with pytest.raises(NotFoundError):
        store.read("repo", "main", "draft", limit=5)


@pytest.mark.parametrize("path", ["../evil", "/evil", "a//b", "folder/..", "config.json/below"])
def test_a_tree_that_no_folder_can_hold_is_refused(store: LakefsStore, plant: Plant, tmp_path: Path, path: str) -> None:
    store.upload("repo", plant(FILES))
    put(store, "repo", path, b"evil")
    for work in (
        lambda: store.checkout("repo", "main", tmp_path / "here/out"),
        lambda: store.get_commit("repo", "main"),
    ):
        with pytest.raises(InvalidInputError, match="cannot become a folder") as caught:
            work()
        assert caught.value.details["files"] == [path]
    assert not (tmp_path / "here").exists()
    newest, before = store.log("repo", limit=2)
    assert store.diff("repo", before.id, newest.id).added == (path,)
    assert store.upload("repo", plant(FILES)).files == before.files


def test_an_empty_folder_of_an_s3_tool_is_no_file(store: LakefsStore, plant: Plant, tmp_path: Path) -> None:
    commit = store.upload("repo", plant(FILES))
    put(store, "repo", "weights/", b"")
    assert store.checkout("repo", "main", tmp_path / "out").files == commit.files
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("status", [404, 410])
def test_an_object_whose_bytes_are_gone_is_named(
    server: FakeLakefs, store: LakefsStore, plant: Plant, tmp_path: Path, status: int
) -> None:
    store.upload("repo", plant({**FILES, "empty": b""}))
    server.fail("get_object", status=status, times=None)
    for work in (lambda: store.checkout("repo", "main", tmp_path / "out"), lambda: store.verify("repo", "main")):
        with pytest.raises(IntegrityError) as caught:
            work()
        assert caught.value.details["files"] == sorted([*FILES, "empty"])


def test_a_digest_that_somebody_made_up_is_damage(store: LakefsStore, plant: Plant, tmp_path: Path) -> None:
    from lakefs_sdk.models.commit_creation import CommitCreation
    from lakefs_sdk.models.update_object_user_metadata import UpdateObjectUserMetadata

    store.upload("repo", plant(FILES))
    client = client_of(store)
    made_up = UpdateObjectUserMetadata(set={"sha256": "0" * 64})
    client.objects_api.update_object_user_metadata("repo", "main", "config.json", made_up)
    client.commits_api.commit("repo", "main", CommitCreation(message="made up"))
    with pytest.raises(IntegrityError, match=r"config\.json"):
        store.checkout("repo", "main", tmp_path / "out")


# ---------------------------------------------------------------- bytes


def test_a_download_goes_on_where_the_connection_broke(
    server: FakeLakefs, store: LakefsStore, plant: Plant, tmp_path: Path
) -> None:
    big = bytes(range(256)) * 40_000
    store.upload("repo", plant({"big": big}))
    server.cut_answer(after_bytes=3_000_000, times=2)
    store.checkout("repo", "main", tmp_path / "out")
    assert contents(tmp_path / "out") == {"big": big}
    ranges = [request.headers.get("range") for request in server.requests if request.operation == "get_object"]
    assert (ranges[0], len(ranges)) == (None, 3)
    assert all(part and part.endswith("-") and part != "bytes=0-" for part in ranges[1:])


def test_reading_a_beginning_fetches_no_more(server: FakeLakefs, store: LakefsStore, plant: Plant) -> None:
    commit = store.upload("repo", plant({"big": bytes(10_000_000)}))
    asked_before = len(server.requests)
    assert store.read("repo", commit.id, "big", limit=8) == bytes(8)
    (request,) = server.requests[asked_before:]
    assert (request.status, request.headers["range"]) == (206, "bytes=0-7")


def test_memory_stays_flat_while_a_file_goes_out_and_comes_back(
    store: LakefsStore, plant: Plant, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    source = plant({"small": b""})
    with open(source / "big", "wb") as file:
        file.truncate(256 * 1024 * 1024)
    store.ping()
    tracemalloc.start()
    try:
        store.upload("repo", source)
        store.checkout("repo", "main", tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    figure(f"256 MiB up and down: {peak / 1024**2:.0f} MiB of Python memory at most")
    assert peak < 64 * 1024 * 1024


def test_a_checkout_into_the_cache_is_refused(store: LakefsStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant(FILES))
    for place in (tmp_path / "cache/out", tmp_path):
        with pytest.raises(InvalidInputError, match="overlaps"):
            store.checkout("repo", "main", place)


def test_a_folder_of_somebody_else_is_not_touched(store: LakefsStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant(FILES))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/diary").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="move it away"):
        store.checkout("repo", "main", tmp_path / "home")
    assert contents(tmp_path / "home") == {"diary": b"mine"}
