"""Datasets over HTTP: the same way as models, apart from them, and out again as verified files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.testing.fake_hub import FakeRepo
from tests.lifecycle import STORES, Platform, ok, refused, running_platform
from tests.service import CLIENT

FILES = {"train.csv": b"a,b\n1,2\n", "deep/test.csv": b"x" * 100_000, "空.jsonl": b""}


@pytest.fixture(scope="module", params=STORES)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service over each kind of store, and a hub where a model and a dataset have one name."""
    repos = [FakeRepo("org/both", FILES, kind="dataset"), FakeRepo("org/both", {"config.json": b"{}"})]
    with running_platform(tmp_path_factory.mktemp(request.param), store=request.param, repos=repos) as running:
        yield running


@pytest.fixture(scope="module")
def commit(platform: Platform) -> str:
    """The commit of the downloaded dataset."""
    arrived = ok(platform.service.post("/datasets/download?wait=true", {"model_name": "org/both"}))
    assert {file["path"] for file in arrived["files"]} == FILES.keys()
    body = {"repo_name": "data", "local_model_name": "org_both"}
    return str(platform.post("/datasets/upload_to_lakefs", body)["commit_id"])


def check_out(platform: Platform, commit_id: str, repo: str = "data") -> Any:
    return platform.service.post("/datasets/checkout", {"repo_name": repo, "commit_id": commit_id})


def committed(platform: Platform, repo: str, content: bytes) -> str:
    platform.stage(repo, {"rows.csv": content}, kind="datasets")
    body = {"repo_name": repo, "local_model_name": repo}
    return str(platform.post("/datasets/upload_to_lakefs", body)["commit_id"])


def contents(folder: str) -> dict[str, bytes]:
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def stamps(folder: str) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in Path(folder).rglob("*")}


def reads(platform: Platform) -> int:
    """How many objects were asked of lakeFS."""
    return sum(request.operation == "get_object" for request in platform.lakefs.requests) if platform.lakefs else 0


@pytest.mark.parametrize("ref", ["full", "short", "branch"])
def test_a_checkout_has_the_files_with_the_right_bytes(platform: Platform, commit: str, ref: str) -> None:
    answer = ok(check_out(platform, {"full": commit, "short": commit[:10], "branch": "main"}[ref]))

    assert answer["commit_id"] == commit
    assert answer["path"] == str(platform.service.data_dir / "datasets" / commit)
    assert contents(answer["path"]) == FILES
    assert {"commit_id": commit, "path": answer["path"]} in platform.get("/datasets/checked_out")


def test_a_second_checkout_touches_nothing(platform: Platform, commit: str) -> None:
    folder = ok(check_out(platform, commit))["path"]
    before, asked = stamps(folder), reads(platform)

    assert ok(check_out(platform, commit))["path"] == folder

    assert (stamps(folder), reads(platform)) == (before, asked)


def test_an_edited_checkout_is_put_right_and_does_not_reach_the_store(platform: Platform, commit: str) -> None:
    folder = Path(ok(check_out(platform, commit))["path"])
    for spoil in ("edited", "deleted", "added"):
        target = folder / ("train.csv" if spoil != "added" else "stray.csv")
        target.unlink(missing_ok=True)
        if spoil != "deleted":
            target.write_bytes(b"9,9\n9,9\n")

        assert contents(ok(check_out(platform, commit))["path"]) == FILES, spoil


def test_a_flipped_byte_in_the_store_is_named_and_nothing_is_put_in_place(platform: Platform) -> None:
    commit_id = committed(platform, "damaged", b"1,2,3\n")
    listed = platform.get(f"/models/lakefs_repos/damaged/commits/{commit_id}")["files"]
    if platform.lakefs:
        platform.lakefs.corrupt("damaged", "rows.csv")
    else:
        (blob,) = (platform.service.data_dir / "store").rglob(listed[0]["sha256"])
        os.chmod(blob, 0o644)
        blob.write_bytes(b"1,2,4\n")

    failure = refused(check_out(platform, commit_id, "damaged"), 500, "rows.csv")

    assert (failure["error_type"], failure["details"]["files"]) == ("IntegrityError", ["rows.csv"])
    left = [path.name for path in (platform.service.data_dir / "datasets").iterdir() if commit_id in path.name]
    assert [name for name in left if not name.endswith(".checkout.lock")] == []


def test_datasets_and_models_do_not_mix(platform: Platform, commit: str) -> None:
    ok(platform.service.post("/models/download?wait=true", {"model_name": "org/both"}))
    datasets = {entry["name"]: [file["path"] for file in entry["files"]] for entry in platform.get("/datasets/local")}
    models = {entry["name"]: [file["path"] for file in entry["files"]] for entry in platform.get("/models/local")}
    assert datasets["org_both"] == sorted(FILES)
    assert models == {"org_both": ["config.json"]}

    platform.stage("only-data", {"a.csv": b"1"}, kind="datasets")
    body = {"repo_name": "wrong", "local_model_name": "only-data"}
    refused(platform.service.post("/models/upload_to_lakefs", body), 404, "only-data", "models")
    ok(platform.delete("/models/local/org_both"))
    assert "org_both" in platform.staged_names("datasets")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/datasets/download", {"model_source": "ollama", "model_name": "x"}, 422, ["'ollama'", "huggingface"]),
        ("/datasets/download?wait=true", {"model_name": "org/none"}, 404, ["dataset", "org/none"]),
        ("/datasets/checkout", {"repo_name": "data", "commit_id": "0" * 64}, 404, ["0" * 64]),
        ("/datasets/checkout", {"repo_name": "nowhere", "commit_id": "main"}, 404, ["nowhere"]),
        ("/datasets/checkout", {"repo_name": "data"}, 422, ["commit_id"]),
        ("/datasets/upload_to_lakefs", {"repo_name": "data", "local_model_name": "none"}, 404, ["none", "datasets"]),
    ],
)
def test_what_cannot_be_is_told(
    platform: Platform, commit: str, path: str, body: dict[str, Any], status: int, words: list[str]
) -> None:
    refused(platform.service.post(path, body), status, *words)
    assert platform.litter() == []


def test_files_of_ones_own_come_in_as_they_are(platform: Platform) -> None:
    def sent(path: str, content: bytes) -> Any:
        url = f"{platform.service.url}/datasets/upload"
        return CLIENT.post(url, files=[("files", (path, content))], data={"name": "mine"}, timeout=60)

    assert [file["path"] for file in ok(sent("rows.parquet", b"PAR1"))["files"]] == ["rows.parquet"]
    refused(sent("setup.sh", b"rm"), 400, "setup.sh", "program")
    assert "mine" in platform.staged_names("datasets")
    assert platform.litter() == []


def test_several_are_downloaded_at_once(platform: Platform) -> None:
    entries = [{"model_name": "org/both", "allow_patterns": ["*.csv"]}, {"model_name": "org/none"}]
    parent = platform.finished(platform.post("/datasets/batch_download", {"downloads": entries})["id"])
    assert [entry["status"] for entry in parent["result"]["jobs"]] == ["succeeded", "failed"]
    assert parent["result"]["jobs"][0]["result"]["name"] == "org_both"
