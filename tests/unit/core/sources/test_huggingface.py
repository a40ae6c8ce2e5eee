"""Downloads from a hub into the staging area."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import (
    ConfigurationError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    PlatformError,
    StoreUnavailableError,
    UnavailableError,
)
from src.core.sources.huggingface import HuggingFaceSource
from src.core.sources.staging import Staged, StagingArea
from src.testing.fake_hub import FakeHub, FakeRepo

WEIGHTS = os.urandom(3_000_000)
FILES: dict[str, bytes | Path] = {
    "config.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": WEIGHTS[:1000],
    "sub/a b#ü.txt": b"text",
}
FETCHED = {path: content for path, content in FILES.items() if path != "pytorch_model.bin"}
SIZE = sum(len(content) for content in FETCHED.values() if isinstance(content, bytes))
PAUSES = (0.01, 0.02, 0.05)

Download = Callable[..., Staged]


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)


@pytest.fixture
def repo() -> FakeRepo:
    return FakeRepo("org/tiny", FILES)


@pytest.fixture
def hub(repo: FakeRepo) -> Iterator[FakeHub]:
    repos = [
        repo,
        FakeRepo("alone", {"config.json": b"1"}),
        FakeRepo("org/table", {"train.parquet": b"rows", "a.bin": b"1", "a.safetensors": b"2"}, kind="dataset"),
        FakeRepo("org/gated", {"config.json": b"{}", "a.bin": b"gated"}, gated=True, granted=("hf_in",)),
        FakeRepo("org/private", {"config.json": b"{}"}, private=True, granted=("hf_in",)),
    ]
    with FakeHub(repos, tokens=("hf_in", "hf_out"), page_size=2) as hub:
        yield hub


@pytest.fixture
def staging(tmp_path: Path) -> StagingArea:
    return StagingArea(tmp_path / "models")


@pytest.fixture
def download(hub: FakeHub, staging: StagingArea) -> Download:
    def call(name: str = "org/tiny", **given: Any) -> Staged:
        own = {key: given.pop(key) for key in ("repo_type", "token", "endpoint", "pauses") if key in given}
        source = HuggingFaceSource(staging, **{"endpoint": hub.url, "pauses": PAUSES, **own})
        return source.download(name, **given)

    return call


def content_of(staged: Staged) -> dict[str, bytes]:
    found = [path for path in staged.path.rglob("*") if path.is_file() and path.name != ".aiml-source.json"]
    return {path.relative_to(staged.path).as_posix(): path.read_bytes() for path in found}


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_what_is_staged_is_the_tree_with_its_record(download: Download, repo: FakeRepo, staging: StagingArea) -> None:
    staged = download()
    assert content_of(staged) == FETCHED
    assert staged == staging.get("org/tiny")
    record = staged.record
    assert record is not None
    assert (record.source, record.name, record.revision) == ("huggingface", "org/tiny", repo.branches["main"])
    assert set(record.files) == set(FETCHED)
    assert record.files["empty.txt"] == "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert record.files["model.safetensors"].startswith("sha256:")
    assert time.time() - record.finished_at < 60
    assert names_in(staging.root) == ["org_tiny"]


def test_a_second_download_transfers_nothing(download: Download, hub: FakeHub) -> None:
    first = download()
    sent = hub.bytes_sent()
    told: list[tuple[int, int]] = []
    second = download(progress=lambda done, total: told.append((done, total)))
    assert (second, hub.bytes_sent()) == (first, sent)
    assert told[-1] == (SIZE, SIZE)


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_staged_file_that_is_not_whole_any_more_is_fetched_again(
    download: Download, hub: FakeHub, damage: str
) -> None:
    path = download().path / "config.json"
    path.unlink() if damage == "missing" else path.write_bytes(b"{")
    assert content_of(download()) == FETCHED
    assert hub.fetches("config.json") == 2
    assert hub.fetches("model.safetensors") == 1


def test_other_patterns_are_another_download(download: Download, hub: FakeHub) -> None:
    assert set(content_of(download(allow_patterns=["*.json"]))) == {"config.json"}
    assert content_of(download()) == FETCHED
    assert set(content_of(download(allow_patterns=["*.bin", "sub/"]))) == {"pytorch_model.bin", "sub/a b#ü.txt"}
    assert hub.fetches("config.json") == 1


def test_a_new_revision_takes_over_what_has_not_changed(download: Download, hub: FakeHub, repo: FakeRepo) -> None:
    download()
    commit = repo.commit({**FILES, "config.json": b'{"new": 1}'})
    staged = download()
    assert staged.record
    assert staged.record.revision == commit
    assert content_of(staged) == {**FETCHED, "config.json": b'{"new": 1}'}
    assert (hub.fetches("config.json"), hub.fetches("model.safetensors")) == (2, 1)


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", None])
def test_a_revision_is_recorded_as_its_commit(download: Download, repo: FakeRepo, revision: str | None) -> None:
    repo.tag("v1", repo.branches["main"])
    repo.commit({"config.json": b"pr"}, branch="refs/pr/1")
    repo.commit({"config.json": b"moved"})
    staged = download(revision=revision)
    expected = repo.at(revision or "main")
    assert expected
    assert staged.record
    assert staged.record.revision == expected.id
    assert content_of(staged)["config.json"] == expected.files["config.json"].content
    assert download(revision=expected.id) == staged


@pytest.mark.parametrize(("name", "folder"), [("alone", "alone"), ("org/tiny", "org_tiny")])
def test_the_folder_is_named_after_the_repository(download: Download, name: str, folder: str) -> None:
    assert download(name).path.name == folder


def test_of_a_dataset_everything_comes(download: Download) -> None:
    staged = download("org/table", repo_type="dataset")
    assert content_of(staged) == {"train.parquet": b"rows", "a.bin": b"1", "a.safetensors": b"2"}


def test_an_endpoint_may_come_from_the_environment(
    download: Download, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    assert content_of(download(endpoint=None)) == FETCHED


# ------------------------------------------------------------------ faults


def test_cuts_and_refusals_are_waited_out_without_sending_twice(download: Download, hub: FakeHub) -> None:
    hub.faults.cut(after=1_000_000, times=2, file="model.safetensors")
    hub.faults.unavailable(times=2, path="/api/models/")
    hub.faults.unavailable(times=2, path="/resolve/", status=500)
    hub.faults.unavailable(times=1, path="/stored/", status=429)
    assert content_of(download()) == FETCHED
    assert hub.bytes_sent() == SIZE


def test_a_network_without_ranges_works_too(download: Download, hub: FakeHub) -> None:
    hub.faults.ranges = False
    hub.faults.cut(after=1_000_000, file="model.safetensors")
    assert content_of(download()) == FETCHED
    assert hub.bytes_sent("model.safetensors") == len(WEIGHTS) + 1_000_000


def test_a_hub_that_restarts_meanwhile_is_waited_for(download: Download, hub: FakeHub) -> None:
    hub.faults.slow(10_000_000)

    def restart() -> None:
        while hub.bytes_sent() < 1_000_000:
            time.sleep(0.01)
        hub.stop()
        time.sleep(0.2)
        hub.faults.slow(None)
        hub.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    assert content_of(download(pauses=(0.1,) * 50)) == FETCHED
    restarting.join()
    assert hub.bytes_sent() < SIZE * 1.5


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_flipped_byte_is_one_fetch_more(download: Download, hub: FakeHub, file: str) -> None:
    hub.faults.flip(file)
    assert content_of(download()) == FETCHED
    assert {path: hub.fetches(path) for path in FETCHED if path != "empty.txt"} == {
        path: 2 if path == file else 1 for path in FETCHED if path != "empty.txt"
    }


def test_a_file_that_is_always_wrong_is_named_and_nothing_is_staged(
    download: Download, hub: FakeHub, staging: StagingArea
) -> None:
    hub.faults.flip("model.safetensors", times=None)
    with pytest.raises(IntegrityError, match=r"model\.safetensors") as caught:
        download()
    assert caught.value.details == {"files": ["model.safetensors"]}
    assert hub.fetches("model.safetensors") == 3
    assert staging.list() == []
    hub.faults.clear()
    assert content_of(download()) == FETCHED


def test_a_hub_that_stays_away_is_unavailable(download: Download, hub: FakeHub, staging: StagingArea) -> None:
    hub.faults.unavailable(times=99)
    with pytest.raises(UnavailableError, match="503"):
        download()
    hub.stop()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        download()
    assert names_in(staging.root) == []


def test_what_is_no_hub_is_said_to_be_none(download: Download, hub: FakeHub) -> None:
    hub.faults.unavailable(times=9, status=200)
    with pytest.raises(UnavailableError, match="does not answer as a hub does"):
        download()


def test_a_full_disk_is_told_before_anything_is_fetched(
    download: Download, hub: FakeHub, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.core.stores.disk_errors.free_bytes", lambda folder: 1000)
    with pytest.raises(StoreUnavailableError, match=r"3,000,\d\d\d bytes are needed, 1,000 are free"):
        download()
    assert hub.bytes_sent() == 0
    assert names_in(staging.root) == []


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "given", "error", "words"),
    [
        ("org/none", {}, NotFoundError, "There is no model 'org/none'.*HF_TOKEN"),
        ("org/none", {"repo_type": "dataset"}, NotFoundError, "There is no dataset 'org/none'"),
        ("org/none", {"token": "hf_in"}, NotFoundError, "There is no model"),
        ("org/private", {"token": "hf_out"}, NotFoundError, "private"),
        ("org/tiny", {"revision": "v9"}, NotFoundError, "no revision 'v9'.*branch, tag or commit"),
        ("org/gated", {}, ForbiddenError, "accept its licence at .*/org/gated .*HF_TOKEN"),
        ("org/gated", {"token": "hf_out"}, ForbiddenError, "accept its licence"),
        ("org/tiny", {"token": "hf_unknown"}, ForbiddenError, "check that HF_TOKEN is valid"),
        ("org/tiny", {"token": "hf_a\nb"}, ConfigurationError, "HF_TOKEN holds"),
        ("org/tiny", {"endpoint": "hub.example"}, ConfigurationError, "HF_ENDPOINT"),
        ("org/tiny", {"allow_patterns": ["*.gguf"]}, InvalidInputError, "there are: config.json, empty.txt"),
        ("../tiny", {}, InvalidInputError, "org/name"),
        ("a/b/c", {}, InvalidInputError, "org/name"),
        ("", {}, InvalidInputError, "org/name"),
        ("-tiny", {}, InvalidInputError, "-tiny"),
    ],
)
def test_refusals_say_what_to_do(
    download: Download,
    staging: StagingArea,
    name: str,
    given: dict[str, Any],
    error: type[PlatformError],
    words: str,
) -> None:
    with pytest.raises(error, match=words) as caught:
        download(name, **given)
    assert "hf_" not in str(caught.value)
    assert names_in(staging.root) == []


@pytest.mark.parametrize(("name", "files"), [("org/gated", {"config.json", "a.bin"}), ("org/private", {"config.json"})])
def test_with_a_token_that_may_read_it_it_comes(download: Download, name: str, files: set[str]) -> None:
    assert set(content_of(download(name, token=" hf_in\n"))) == files


def test_offline_is_told_at_once(download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE"):
        download(pauses=(3600.0,))


@pytest.mark.parametrize("path", ["../out.txt", "/out.txt", "a\\b.txt", "sub/../../out.txt"])
def test_a_hostile_path_writes_nothing_anywhere(
    download: Download, hub: FakeHub, staging: StagingArea, tmp_path: Path, path: str
) -> None:
    hub.put(FakeRepo("org/hostile", {"config.json": b"{}", path: b"gotcha"}))
    with pytest.raises(InvalidInputError):
        download("org/hostile")
    assert hub.bytes_sent() == 0
    assert names_in(staging.root) == []
    assert names_in(tmp_path) == []


# ------------------------------------------------------------------ progress


class Enough(BaseException):
    """As the job service's own: no `Exception`."""


def test_progress_is_told_often_and_ends_at_the_total(download: Download, hub: FakeHub) -> None:
    hub.faults.slow(3_000_000)
    told: list[tuple[float, int, int]] = []
    download(progress=lambda done, total: told.append((time.monotonic(), done, total)))
    known = [(done, total) for _, done, total in told if total]
    assert known == sorted(known)
    assert known[-1] == (SIZE, SIZE)
    assert len([done for done, _ in known if 0 < done < SIZE]) >= 2
    assert {(done, total) for _, done, total in told if not total} <= {(0, 0)}


@pytest.mark.parametrize("error", [Enough(), TimeoutError("late"), KeyboardInterrupt()])
def test_what_progress_raises_stops_it_and_the_next_time_goes_on(
    download: Download, hub: FakeHub, staging: StagingArea, error: BaseException
) -> None:
    hub.faults.slow(3_000_000)

    def progress(done: int, total: int) -> None:
        if done > 1_000_000:
            raise error

    with pytest.raises(type(error)) as caught:
        download(progress=progress)
    assert caught.value is error
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aiml-hub")]
    assert staging.list() == []
    hub.faults.slow(None)
    told: list[tuple[int, int]] = []
    assert content_of(download(progress=lambda done, total: told.append((done, total)))) == FETCHED
    assert next(done for done, total in told if total) > 1_000_000
    assert hub.bytes_sent() < SIZE * 1.5


def test_one_may_stop_while_the_hub_is_away(download: Download, hub: FakeHub) -> None:
    hub.faults.unavailable(times=99, retry_after=3600)
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Enough

    with pytest.raises(Enough):
        download(progress=progress)


def test_a_branch_that_moves_meanwhile_does_not_mix(download: Download, hub: FakeHub, repo: FakeRepo) -> None:
    hub.faults.slow(3_000_000)

    def progress(done: int, total: int) -> None:
        if done > 1_000_000:
            raise Enough

    with pytest.raises(Enough):
        download(progress=progress)
    hub.faults.slow(None)
    hub.requests.clear()
    repo.commit({**FILES, "model.safetensors": WEIGHTS[::-1]})
    staged = download()
    assert content_of(staged) == {**FETCHED, "model.safetensors": WEIGHTS[::-1]}
    assert staged.record
    assert staged.record.revision == repo.branches["main"]
    assert [request.start for request in hub.requests if request.file == "model.safetensors"] == [0]
