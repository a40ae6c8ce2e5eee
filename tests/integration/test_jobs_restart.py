"""Jobs over HTTP while the service ends and comes back: none is lost, nothing is fetched twice, nobody waits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.testing.fake_hub import FakeHub, FakeRepo
from src.testing.fake_ollama import FakeOllama
from tests.lifecycle import Platform, ok, refused
from tests.service import CLIENT, Service, running_service, wait_until

SIZE = 4_000_000
SLOW = 2_000_000  # bytes per second
IN_FLIGHT = 1_000_000  # bytes that were sent, and not yet written when the process died
SOON = 40.0
BODY = {"model_source": "huggingface", "model_name": "org/big"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A slow hub with a model that takes two seconds."""
    big = FakeRepo("org/big", {"config.json": b"{}", "model.safetensors": bytes(SIZE)})
    with FakeHub([big, FakeRepo("org/small", {"config.json": b"{}"})]) as server:
        server.faults.slow(SLOW)
        yield server


@contextmanager
def started(folder: Path, hub: FakeHub, ollama: FakeOllama) -> Iterator[Platform]:
    """The service over the test's data folder."""
    with running_service(folder / "data", HF_ENDPOINT=hub.url, OLLAMA_HOST=ollama.url) as service:
        yield Platform(service, hub, ollama, None)


def half_done(platform: Platform) -> str:
    """Starts a download; returns its job's id once a half has come."""
    job_id = str(platform.post("/models/download", BODY)["id"])
    wait_until(lambda: platform.get(f"/jobs/{job_id}")["bytes_done"] > SIZE / 2, 60, "half of it to arrive")
    return job_id


def in_a_thread(ask: Any) -> tuple[threading.Thread, list[Any]]:
    """Asks in a thread; returns it, and the list that gets the answer."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    return thread, answers


def ended(service: Service) -> float:
    """Tells the service to stop; returns how long that took."""
    asked = time.monotonic()
    service.process.terminate()
    service.process.wait(60)
    return time.monotonic() - asked


@pytest.mark.parametrize("kill", [False, True], ids=["terminated", "killed"])
def test_a_download_goes_on_where_it_was(tmp_path: Path, hub: FakeHub, ollama: FakeOllama, kill: bool) -> None:
    with started(tmp_path, hub, ollama) as platform:
        job_id = half_done(platform)
        upload = platform.post(
            "/models/upload_to_lakefs?wait=false", {"repo_name": "big", "local_model_name": "org/big"}
        )
        (platform.service.process.kill if kill else platform.service.process.terminate)()
        platform.service.process.wait(60)
    hub.faults.slow(None)
    with started(tmp_path, hub, ollama) as platform:
        job = platform.finished(job_id)
        commit = platform.finished(upload["id"])

        assert (job["status"], job["result"]["name"], job["progress"]) == ("succeeded", "org_big", 1.0)
        assert (commit["status"], commit["result"]["size_bytes"]) == ("succeeded", SIZE + 2)
        assert platform.litter() == []
        assert job["attempts"] == 2
    assert hub.bytes_sent() < SIZE + IN_FLIGHT


def test_a_service_that_is_told_to_stop_does_not_wait_for_its_watchers(
    tmp_path: Path, hub: FakeHub, ollama: FakeOllama
) -> None:
    with started(tmp_path, hub, ollama) as platform:
        job_id = half_done(platform)
        hub.faults.slow(20_000)  # whoever waits for the rest waits for longer than SOON
        url = f"{platform.service.url}/jobs/{job_id}/events"
        watcher, seen = in_a_thread(lambda: httpx.get(url, timeout=60, trust_env=False).text)
        waiter, answers = in_a_thread(lambda: platform.service.post("/models/download?wait=true", BODY))
        time.sleep(2)  # both are served by now

        assert ended(platform.service) < SOON

        watcher.join()
        waiter.join()
    assert "event: running" in seen[0]
    failure = refused(answers[0], 503, job_id, "next start")
    assert (failure["error_type"], failure["details"]["job_id"]) == ("DrainingError", job_id)


def test_what_has_ended_or_was_cancelled_stays_so(tmp_path: Path, hub: FakeHub, ollama: FakeOllama) -> None:
    with started(tmp_path, hub, ollama) as platform:
        small = ok(platform.service.post("/models/download?wait=true", {"model_name": "org/small"}))
        failure = refused(platform.service.post("/models/download?wait=true", {"model_name": "org/nobody"}), 404)
        before = {job["id"]: job for job in platform.get("/jobs")}
        cancelled = half_done(platform)
        platform.post(f"/jobs/{cancelled}/cancel")
        platform.service.process.kill()
        platform.service.process.wait()
    with started(tmp_path, hub, ollama) as platform:
        assert platform.finished(cancelled)["status"] == "cancelled"
        assert platform.litter() == []
        assert before.keys() == {small["job_id"], failure["details"]["job_id"]}
        assert {job["id"]: job for job in platform.get("/jobs") if job["id"] != cancelled} == before


@pytest.mark.slow
def test_a_second_service_on_the_same_data_shows_jobs_and_takes_none(
    tmp_path: Path, hub: FakeHub, ollama: FakeOllama
) -> None:
    with started(tmp_path, hub, ollama) as platform, started(tmp_path, hub, ollama) as second:
        job_id = half_done(platform)
        assert second.get(f"/jobs/{job_id}")["kind"] == "download"
        refused(second.service.post("/models/download", BODY), 503, "Another process")
        platform.post(f"/jobs/{job_id}/cancel")
        platform.finished(job_id)
        ended(platform.service)

        def taken() -> bool:
            return CLIENT.post(f"{second.service.url}/models/download", json=BODY, timeout=30).status_code == 200

        wait_until(taken, SOON, "the second one to take over")
