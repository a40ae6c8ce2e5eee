"""Cancelling a job, and what becomes of the same work asked for again."""

import threading
import time
from pathlib import Path

import pytest

from src.core.errors import ConflictError, StoreUnavailableError
from src.core.jobs import JobCancelled, JobContext, JobInterrupted, JobService
from tests.unit.core.jobs.handlers import PATIENCE, Gate, Json, Open


def test_a_queued_job_is_cancelled_at_once_and_never_runs(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate}, concurrency=1)
    service.submit("gate", {"n": 1})
    waiting = service.submit("gate", {"n": 2})
    job = service.cancel(waiting.id)
    assert (job.status, job.error_type, job.attempts) == ("cancelled", "CancelledError", 0)
    gate.open()
    last = service.submit("gate", {"n": 3})
    service.wait(last.id, PATIENCE)
    assert [start["n"] for start in gate.starts] == [1, 3]


def test_a_running_job_is_cancelled_when_its_handler_has_let_go(open_service: Open, tmp_path: Path) -> None:
    litter, told, may_go = tmp_path / "litter", threading.Event(), threading.Event()

    def untidy(job: JobContext, request: Json) -> Json:
        litter.touch()
        try:
            while True:
                job.progress(1, 2)
                time.sleep(0.01)
        except JobCancelled:
            told.set()
            may_go.wait(PATIENCE)
            litter.unlink()
            raise

    service = open_service({"untidy": untidy})
    job = service.submit("untidy", {})
    while not litter.exists():
        time.sleep(0.01)
    seen = service.cancel(job.id)
    assert (seen.status, seen.cancelling) == ("running", True)
    assert told.wait(PATIENCE)
    assert service.get(job.id).status == "running"
    assert service.cancel(job.id).cancelling
    may_go.set()
    final = service.wait(job.id, PATIENCE)
    assert (final.status, final.cancelling, final.bytes_done) == ("cancelled", False, 1)
    assert not litter.exists()


def test_what_a_library_makes_of_a_cancellation_is_one_still(open_service: Open, gate: Gate) -> None:
    def wrapping(job: JobContext, request: Json) -> Json:
        try:
            return gate(job, request)
        except JobCancelled as exc:
            raise StoreUnavailableError("the transfer broke off") from exc

    service = open_service({"wrapping": wrapping})
    job = service.submit("wrapping", {})
    gate.wait_for_starts(1)
    service.cancel(job.id)
    assert service.wait(job.id, PATIENCE).status == "cancelled"


@pytest.mark.parametrize("stopped", [JobCancelled, JobInterrupted])
def test_no_except_exception_swallows_it(stopped: type[BaseException]) -> None:
    assert not issubclass(stopped, Exception)


def test_a_handler_that_is_done_before_it_hears_of_it_has_succeeded(open_service: Open) -> None:
    started, may_go = threading.Event(), threading.Event()

    def deaf(job: JobContext, request: Json) -> Json:
        started.set()
        may_go.wait(PATIENCE)
        return {"done": True}

    service = open_service({"deaf": deaf})
    job = service.submit("deaf", {})
    assert started.wait(PATIENCE)
    service.cancel(job.id)
    may_go.set()
    assert service.wait(job.id, PATIENCE).result == {"done": True}


def test_a_job_that_is_over_cannot_be_cancelled(service: JobService) -> None:
    job = service.wait(service.submit("echo", {}).id, PATIENCE)
    with pytest.raises(ConflictError, match=r"is over \(succeeded\)"):
        service.cancel(job.id)


def test_the_same_work_asked_for_again_waits_until_the_cancelled_one_has_let_go(open_service: Open) -> None:
    may_go, told, at_work = threading.Event(), threading.Event(), []

    def slow_to_go(job: JobContext, request: Json) -> Json:
        at_work.append(job.id)
        try:
            while not may_go.wait(0.01):
                job.check()
        except JobCancelled:
            told.set()
            may_go.wait(PATIENCE)
            raise
        finally:
            at_work.remove(job.id)
        return {"alone": not at_work}

    service = open_service({"slow": slow_to_go, "echo": lambda job, request: {}})
    first = service.submit("slow", {"name": "a"})
    while not at_work:
        time.sleep(0.01)
    service.cancel(first.id)
    assert told.wait(PATIENCE)
    second = service.submit("slow", {"name": "a"})
    assert second.id != first.id
    service.wait(service.submit("echo", {}).id, PATIENCE)  # there is room, and yet
    assert service.get(second.id).status == "queued"
    may_go.set()
    assert service.wait(second.id, PATIENCE).result == {"alone": True}
    assert service.get(first.id).status == "cancelled"


def test_a_running_job_hears_of_it_within_a_second(open_service: Open, gate: Gate) -> None:
    heard: list[float] = []

    def listening(job: JobContext, request: Json) -> Json:
        try:
            return gate(job, request)
        except JobCancelled:
            heard.append(time.monotonic())
            raise

    service = open_service({"listening": listening})
    job = service.submit("listening", {})
    gate.wait_for_starts(1)
    told = time.monotonic()
    service.cancel(job.id)
    assert service.wait(job.id, PATIENCE).status == "cancelled"
    assert heard[0] - told < 1.0
