"""Jobs over HTTP: listed, watched, shared, cancelled, waited for; how they fail."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from src.testing.fake_hub import FakeRepo
from tests.lifecycle import Platform, ok, refused, running_platform
from tests.service import CLIENT, wait_until

SIZE = 4_000_000
SLOW = 400_000  # bytes per second: ten seconds for one model
SOON = 10.0
NAMES = ["one", "two", "three", "small"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service beside a hub with some models that take a while where the hub is slow."""
    files = {"config.json": b"{}", "model.safetensors": bytes(SIZE)}
    repos = [FakeRepo(f"org/{name}", {**files, "name.txt": name.encode()}) for name in NAMES]
    repos.append(FakeRepo("org/small", {"config.json": b"{}"}))
    with running_platform(tmp_path_factory.mktemp("jobs"), repos=repos) as running:
        yield running


@pytest.fixture(autouse=True)
def _as_it_was(platform: Platform) -> Iterator[None]:
    """Lets no job, fault or staged model outlive its test."""
    yield
    platform.hub.faults.clear()
    for status in ("queued", "running"):
        for job in platform.get("/jobs", status=status):
            platform.service.post(f"/jobs/{job['id']}/cancel")
    wait_until(lambda: not unfinished(platform), SOON, "the jobs to end")
    for name in platform.staged_names():
        platform.delete(f"/models/local/{name}")


def unfinished(platform: Platform) -> list[str]:
    return [job["id"] for job in platform.get("/jobs") if job["finished_at"] is None]


def download(platform: Platform, name: str, **more: Any) -> dict[str, Any]:
    body = {"model_source": "huggingface", "model_name": f"org/{name}", **more}
    job: dict[str, Any] = platform.post("/models/download", body)
    return job


def arriving(platform: Platform, name: str, **more: Any) -> str:
    """Starts a slow download; returns its job's id once bytes have come."""
    platform.hub.faults.slow(SLOW)
    job_id = str(download(platform, name, **more)["id"])
    wait_until(lambda: platform.get(f"/jobs/{job_id}")["bytes_done"] > 100_000, SOON, "some bytes to arrive")
    return job_id


@contextmanager
def watching(platform: Platform, job_id: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """Yields the events of a job: the name of each, and the job as it was."""
    with CLIENT.stream("GET", f"{platform.service.url}/jobs/{job_id}/events", timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line.partition(": ") for line in response.iter_lines() if line and line[0] != ":")
        fields = ((field, value) for field, _, value in lines)
        yield ((name, json.loads(data)) for (_, name), (_, data) in zip(fields, fields, strict=True))


def test_jobs_are_listed_the_newest_first_and_filtered(platform: Platform) -> None:
    first, second = (platform.finished(download(platform, "small", revision=name)["id"]) for name in ("main", "nope"))
    upload = platform.post("/models/upload_to_lakefs?wait=false", {"repo_name": "rr", "local_model_name": "org_small"})
    platform.finished(upload["id"])

    listed = [job["id"] for job in platform.get("/jobs")]
    assert listed[:3] == [upload["id"], second["id"], first["id"]]
    assert [job["id"] for job in platform.get("/models/jobs", limit=2)] == listed[:2]
    assert platform.get("/jobs", kind="upload_to_lakefs")[0]["id"] == upload["id"]
    assert {job["status"] for job in platform.get("/jobs", status="failed")} == {"failed"}
    assert platform.get("/jobs", status="running") == platform.get("/jobs", kind="no-such-kind") == []
    refused(platform.service.get("/jobs?status=done"), 422, "'done'", "queued, running, succeeded, failed, cancelled")
    refused(platform.service.get("/jobs?limit=0"), 422, "limit")


@pytest.mark.parametrize("path", ["/jobs/nope", "/models/jobs/nope", "/jobs/nope/events", "/jobs/nope/cancel"])
def test_a_job_that_is_not_there_is_told(platform: Platform, path: str) -> None:
    response = platform.service.post(path) if path.endswith("cancel") else platform.service.get(path)
    assert response.headers["content-type"] == "application/json"
    assert refused(response, 404, "'nope'")["error_type"] == "NotFoundError"


def test_a_watcher_sees_the_present_state_then_progress_then_the_end(platform: Platform) -> None:
    job_id = arriving(platform, "one")
    seen = []
    with watching(platform, job_id) as events:
        for name, job in events:
            seen.append(job)
            assert name == job["status"]
            if len(seen) == 4:
                platform.hub.faults.slow(None)
                platform.service.post(f"/jobs/{download(platform, 'small')['id']}/cancel")  # somebody else's

    done = [job["bytes_done"] for job in seen]
    assert {job["id"] for job in seen} == {job_id}
    assert done[0] > 0
    assert done == sorted(done)
    assert seen[1]["bytes_per_second"] > 0
    assert seen[1]["eta_seconds"] > 0
    assert [job["status"] for job in seen[:-1]] == ["running"] * (len(seen) - 1)
    assert (seen[-1]["status"], seen[-1]["progress"], seen[-1]["bytes_done"]) == ("succeeded", 1.0, SIZE + 5)
    with watching(platform, job_id) as events:
        assert [name for name, _ in events] == ["succeeded"]


def test_a_running_download_is_cancelled_soon_and_leaves_nothing(platform: Platform) -> None:
    job_id = arriving(platform, "one")
    assert platform.litter() != []
    asked = time.monotonic()

    assert platform.post(f"/jobs/{job_id}/cancel")["status"] in ("running", "cancelled")

    job = platform.finished(job_id)
    assert time.monotonic() - asked < SOON
    assert (job["status"], job["error_type"], job["result"]) == ("cancelled", "CancelledError", None)
    assert platform.litter() == []
    assert platform.staged_names() == []
    refused(platform.service.post(f"/jobs/{job_id}/cancel"), 409, "cancelled", "nothing to cancel")
    platform.hub.faults.slow(None)
    assert platform.finished(download(platform, "one")["id"])["status"] == "succeeded"


def test_a_queued_job_is_cancelled_without_having_run(platform: Platform) -> None:
    for name in ("one", "two"):
        arriving(platform, name)
    third = download(platform, "three")
    assert third["status"] == "queued"
    assert platform.post(f"/jobs/{third['id']}/cancel")["status"] == "cancelled"
    assert platform.get(f"/jobs/{third['id']}")["started_at"] is None


def test_a_finished_job_cannot_be_cancelled(platform: Platform) -> None:
    job = platform.finished(download(platform, "small")["id"])
    refused(platform.service.post(f"/jobs/{job['id']}/cancel"), 409, "succeeded")


def test_the_same_request_shares_the_job_while_it_runs(platform: Platform) -> None:
    before = platform.hub.bytes_sent("name.txt")
    job_id = arriving(platform, "one")

    assert download(platform, "one")["id"] == download(platform, "one", revision=None)["id"] == job_id
    platform.hub.faults.slow(None)
    assert platform.finished(job_id)["status"] == "succeeded"
    assert platform.hub.bytes_sent("name.txt") - before == len("one")
    assert download(platform, "one")["id"] != job_id


def test_cancelling_one_that_waits_for_the_same_files_does_not_hurt_the_one_that_fetches_them(
    platform: Platform,
) -> None:
    first = arriving(platform, "one")
    second = download(platform, "one", revision="main")["id"]
    wait_until(lambda: platform.get(f"/jobs/{second}")["bytes_total"] > 0, SOON, "the second one to wait")

    platform.post(f"/jobs/{second}/cancel")

    assert platform.finished(second)["status"] == "cancelled"
    platform.hub.faults.slow(None)
    job = platform.finished(first)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert platform.litter() == []


def test_an_upload_waits_for_the_download_of_its_model(platform: Platform) -> None:
    fetch = arriving(platform, "two")
    body = {"repo_name": "waited", "local_model_name": "org/two"}
    upload = platform.post("/models/upload_to_lakefs?wait=false", body)
    assert (upload["status"], upload["after"]) == ("queued", [fetch])

    platform.hub.faults.slow(None)

    done = platform.finished(upload["id"])
    assert (done["status"], done["result"]["size_bytes"]) == ("succeeded", SIZE + 5)
    assert done["started_at"] >= platform.get(f"/jobs/{fetch}")["finished_at"]
    assert done["result"]["metadata"]["source_name"] == "org/two"


def test_an_upload_fails_with_the_download_that_it_waits_for(platform: Platform) -> None:
    fetch = arriving(platform, "two")
    body = {"repo_name": "never", "local_model_name": "org_two"}
    upload = platform.post("/models/upload_to_lakefs?wait=false", body)
    platform.post(f"/jobs/{fetch}/cancel")

    done = platform.finished(upload["id"])

    assert (done["status"], done["error_type"]) == ("failed", "ConflictError")
    assert fetch in done["error"]
    assert "never" not in [repo["name"] for repo in platform.get("/models/lakefs_repos")]


def test_a_batch_tells_how_each_entry_went(platform: Platform) -> None:
    entries = [{"model_name": "org/small"}, {"model_name": "org/nobody"}, {"model_name": "org/small"}]
    parent = platform.finished(platform.post("/models/batch_download", {"downloads": entries})["id"])

    assert (parent["status"], parent["kind"]) == ("succeeded", "batch_download")
    told = parent["result"]["jobs"]
    assert [entry["status"] for entry in told] == ["succeeded", "failed", "succeeded"]
    assert told[0] == told[2]  # the same work is one job
    assert told[0]["result"]["name"] == "org_small"
    assert (told[1]["error_type"], "org/nobody" in told[1]["error"]) == ("NotFoundError", True)
    assert [entry["id"] for entry in told] == parent["children"]


def test_a_batch_in_which_all_fails_has_failed(platform: Platform) -> None:
    entries = [{"model_name": "org/nobody"}, {"model_name": "org/nothing"}]
    parent = platform.finished(platform.post("/models/batch_download", {"downloads": entries})["id"])
    assert (parent["status"], parent["error_type"]) == ("failed", "NotFoundError")
    assert "None of the 2 jobs succeeded" in parent["error"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], ["downloads"]),
        ([{"model_name": "org/small"}, {"model_source": "hugingface", "model_name": "x"}], ["did you mean"]),
        ([{"model_name": "org/small"}, {"modelname": "x"}], ["modelname"]),
    ],
)
def test_a_batch_that_cannot_be_starts_nothing(platform: Platform, entries: list[Any], words: list[str]) -> None:
    before = platform.get("/jobs")
    refused(platform.service.post("/models/batch_download", {"downloads": entries}), 422, *words)
    assert platform.get("/jobs") == before


@pytest.mark.parametrize(
    ("body", "status", "error_type", "words"),
    [
        ({"model_name": "org/nobody"}, 404, "NotFoundError", ["org/nobody", "HF_TOKEN"]),
        ({"model_name": "org/small", "revision": "v9"}, 404, "NotFoundError", ["v9"]),
        ({"model_name": "org/small", "allow_patterns": ["*.gguf"]}, 400, "ValueError", ["*.gguf", "config.json"]),
        ({"model_source": "ollama", "model_name": "nobody"}, 404, "ModelNotFoundError", ["nobody"]),
    ],
)
def test_a_failure_keeps_its_type_and_status_whether_waited_for_or_not(
    platform: Platform, body: dict[str, Any], status: int, error_type: str, words: list[str]
) -> None:
    failure = refused(platform.service.post("/models/download?wait=true", body), status, *words)
    job = platform.get(f"/jobs/{failure['details']['job_id']}")

    assert failure["error_type"] == job["error_type"] == error_type
    assert (job["status"], job["error"]) == ("failed", failure["error"])
    assert platform.litter() == []


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/models/upload_to_lakefs", {"repo_name": "rr", "local_model_name": "ghost"}, 404, ["'ghost'", "staged are"]),
        ("/models/upload_to_lakefs", {"repo_name": "rr", "local_model_name": "../x"}, 400, ["folder name"]),
        ("/models/download", {"model_name": "../x"}, 400, ["folder name"]),
        ("/models/download", {"model_source": "hugingface", "model_name": "x"}, 422, ["did you mean 'huggingface'"]),
        ("/models/download", {"model_name": "org/small", "revison": "main"}, 422, ["revison"]),
        ("/datasets/checkout", {"repo_name": "ghosts", "commit_id": "main"}, 404, ["ghosts"]),
    ],
)
@pytest.mark.parametrize("wait", [True, False])
def test_what_cannot_even_begin_makes_no_job(
    platform: Platform, path: str, body: dict[str, Any], status: int, words: list[str], wait: bool
) -> None:
    before = platform.get("/jobs")
    refused(platform.service.post(f"{path}?wait={wait}", body), status, *words)
    assert platform.get("/jobs") == before


def test_a_download_that_comes_out_wrong_is_refused_whole(platform: Platform) -> None:
    platform.hub.faults.flip("model.safetensors", times=None)
    body = {"model_name": "org/three"}
    failure = refused(platform.service.post("/models/download?wait=true", body), 500, "model.safetensors", "digest")

    assert (failure["error_type"], failure["details"]["files"]) == ("IntegrityError", ["model.safetensors"])
    assert platform.staged_names() == []
    platform.hub.faults.clear()
    arrived = ok(platform.service.post("/models/download?wait=true", body))
    assert (arrived["name"], arrived["size_bytes"]) == ("org_three", SIZE + 7)
    assert arrived["job_id"]


def test_ollama_pulls_as_a_job(platform: Platform) -> None:
    arrived = platform.post("/models/download?wait=true", {"model_source": "ollama", "model_name": "pulled"})
    assert arrived["name"] == "pulled:latest"
    assert "pulled:latest" in [model["name"] for model in platform.get("/models/local", model_source="ollama")]
    assert platform.get(f"/jobs/{arrived['job_id']}")["progress"] == 1.0
