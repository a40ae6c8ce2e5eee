"""The fake hub, proven by the hub's own client."""

import os
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from src.testing.fake_hub import FakeHub, FakeRepo

WEIGHTS = os.urandom(25_000_000)
FILES: dict[str, bytes | Path] = {
    "config.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "sub/a b#ü.txt": b"text",
}


class NoBar(tqdm):
    """A progress bar that nobody sees."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        monkeypatch.setattr(huggingface_hub.constants, name, True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    repos = [
        FakeRepo("org/tiny", FILES),
        FakeRepo("tiny", {"config.json": b"1"}),
        FakeRepo("org/table", {"train.parquet": b"rows"}, kind="dataset"),
        FakeRepo("org/gated", {"config.json": b"{}", "a.bin": b"gated"}, gated=True, granted=("hf_in",)),
        FakeRepo("org/private", {"config.json": b"{}"}, private=True, granted=("hf_in",)),
    ]
    with FakeHub(repos, page_size=2, tokens=("hf_in", "hf_out")) as hub:
        yield hub


def content_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_snapshot_is_the_tree(hub: FakeHub, tmp_path: Path) -> None:
    snapshot_download("org/tiny", local_dir=tmp_path / "got", endpoint=hub.url, tqdm_class=NoBar)
    assert content_of(tmp_path / "got") == FILES
    assert hub.bytes_sent() == sum(len(content) for content in FILES.values() if isinstance(content, bytes))


def test_a_snapshot_survives_cuts_and_goes_on_where_it_was(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.cut(after=12_000_000, file="model.safetensors")
    snapshot_download("org/tiny", local_dir=tmp_path / "got", endpoint=hub.url, tqdm_class=NoBar)
    assert content_of(tmp_path / "got") == FILES
    starts = [request.start for request in hub.requests if request.file == "model.safetensors"]
    assert starts == [0, 10 * 1024 * 1024]  # the client keeps whole steps of 10 MiB


def test_the_client_takes_a_flipped_byte(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.flip("model.safetensors")
    path = hf_hub_download(
        "org/tiny", "model.safetensors", local_dir=tmp_path / "got", endpoint=hub.url, tqdm_class=NoBar
    )
    got = Path(path).read_bytes()
    assert sum(left != right for left, right in zip(got, WEIGHTS, strict=True)) == 1


@pytest.mark.parametrize(
    ("repo", "kind", "file"), [("tiny", "model", "config.json"), ("org/table", "dataset", "train.parquet")]
)
def test_a_file_comes_into_the_cache(hub: FakeHub, tmp_path: Path, repo: str, kind: str, file: str) -> None:
    path = hf_hub_download(repo, file, repo_type=kind, cache_dir=tmp_path / "cache", endpoint=hub.url, tqdm_class=NoBar)
    assert Path(path).read_bytes() in (b"1", b"rows")


def test_branches_tags_and_commits_are_revisions(hub: FakeHub, tmp_path: Path) -> None:
    repo = FakeRepo("org/moving", {"a.txt": b"1"})
    first = repo.branches["main"]
    repo.tag("v1", first)
    repo.commit({"a.txt": b"2"})
    repo.commit({"a.txt": b"3"}, branch="refs/pr/1")
    hub.put(repo)

    def at(revision: str) -> bytes:
        got = hf_hub_download(
            "org/moving", "a.txt", revision=revision, cache_dir=tmp_path, endpoint=hub.url, tqdm_class=NoBar
        )
        return Path(got).read_bytes()

    assert [at(revision) for revision in ("main", "v1", first, "refs/pr/1")] == [b"2", b"1", b"1", b"3"]
    refs = HfApi(endpoint=hub.url).list_repo_refs("org/moving")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first}


def test_information_has_sizes_and_digests(hub: FakeHub) -> None:
    api = HfApi(endpoint=hub.url)
    siblings = {file.rfilename: file for file in api.model_info("org/tiny", files_metadata=True).siblings or []}
    listed = {file.path: file for file in api.list_repo_tree("org/tiny", recursive=True)}
    assert set(siblings) == set(FILES)
    assert set(listed) == {*FILES, "sub"}
    weights = siblings["model.safetensors"].lfs
    assert weights
    assert weights.size == len(WEIGHTS)
    assert listed["model.safetensors"].lfs.sha256 == weights.sha256
    # git hash-object of an empty file
    assert siblings["empty.txt"].blob_id == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_a_tree_is_listed_by_folder_and_by_path(hub: FakeHub) -> None:
    api = HfApi(endpoint=hub.url)
    assert [entry.path for entry in api.list_repo_tree("org/tiny", "sub")] == ["sub/a b#ü.txt"]
    assert {entry.path for entry in api.list_repo_tree("org/tiny")} == {*FILES, "sub"} - {"sub/a b#ü.txt"}
    assert [entry.path for entry in api.get_paths_info("org/tiny", ["config.json", "none"])] == ["config.json"]


@pytest.mark.parametrize(
    ("repo", "file", "revision", "token", "error", "status"),
    [
        ("org/none", "a", None, None, RepositoryNotFoundError, 401),
        ("org/none", "a", None, "hf_in", RepositoryNotFoundError, 404),
        ("org/private", "config.json", None, None, RepositoryNotFoundError, 401),
        ("org/private", "config.json", None, "hf_out", RepositoryNotFoundError, 404),
        ("org/tiny", "config.json", "v9", None, RevisionNotFoundError, 404),
        ("org/tiny", "none.json", None, None, RemoteEntryNotFoundError, 404),
        ("org/gated", "config.json", None, None, GatedRepoError, 401),
        ("org/gated", "a.bin", None, "hf_out", GatedRepoError, 403),
        ("org/tiny", "config.json", None, "hf_unknown", HfHubHTTPError, 401),
    ],
)
def test_refusals_are_told_apart(
    hub: FakeHub,
    tmp_path: Path,
    repo: str,
    file: str,
    revision: str | None,
    token: str | None,
    error: type[HfHubHTTPError],
    status: int,
) -> None:
    with pytest.raises(error) as caught:
        hf_hub_download(repo, file, revision=revision, token=token, cache_dir=tmp_path, endpoint=hub.url)
    assert type(caught.value) is error
    assert caught.value.response.status_code == status


def test_who_was_granted_reads_a_gated_repository(hub: FakeHub, tmp_path: Path) -> None:
    for file, content in (("config.json", b"{}"), ("a.bin", b"gated")):
        path = hf_hub_download("org/gated", file, token="hf_in", cache_dir=tmp_path, endpoint=hub.url, tqdm_class=NoBar)
        assert Path(path).read_bytes() == content


def test_the_client_waits_out_refusals(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.unavailable(times=2, path="/resolve/")
    path = hf_hub_download("tiny", "config.json", cache_dir=tmp_path, endpoint=hub.url, tqdm_class=NoBar)
    assert Path(path).read_bytes() == b"1"
    assert [request.status for request in hub.requests].count(503) == 2
