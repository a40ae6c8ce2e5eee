"""Jobs that wait for others, and parents with their children."""

import threading
import time
from typing import Any

import pytest

from src.core.errors import InvalidInputError, NotFoundError
from src.core.jobs import JobService
from tests.unit.core.jobs.handlers import PATIENCE, Gate, Json, Open

# ---------------------------------------------------------------------- waiting for others


def test_a_job_starts_when_those_before_it_have_succeeded(service: JobService, gate: Gate) -> None:
    before = [service.submit("gate", {"n": n}) for n in (1, 2)]
    job = service.submit("echo", {}, after=[one.id for one in before])
    gate.wait_for_starts(2)
    assert (job.status, job.after) == ("queued", tuple(one.id for one in before))
    assert service.wait(job.id, 0.1).status == "queued"
    gate.open()
    assert service.wait(job.id, PATIENCE).status == "succeeded"
    assert {service.get(one.id).status for one in before} == {"succeeded"}


def test_a_job_that_waits_takes_nobodys_place(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate, "echo": lambda job, request: {}}, concurrency=2)
    first = service.submit("gate", {})
    for n in range(3):
        service.submit("echo", {"n": n}, after=[first.id])
    assert service.wait(service.submit("echo", {}).id, PATIENCE).status == "succeeded"


def test_a_job_fails_with_the_one_that_it_waits_for(service: JobService, gate: Gate) -> None:
    before = service.submit("gate", {"error": "the disk is on fire"})
    chain = service.submit("echo", {"n": 1}, after=[before.id])
    end = service.submit("echo", {"n": 2}, after=[chain.id])
    gate.open()
    failed = service.wait(end.id, PATIENCE)
    assert (failed.status, failed.error_type, failed.attempts) == ("failed", "InternalError", 0)
    assert f"waited for job {chain.id} (echo)" in (failed.error or "")
    assert "the disk is on fire" in (failed.error or "")


def test_a_job_fails_when_the_one_that_it_waits_for_is_cancelled(service: JobService, gate: Gate) -> None:
    before = service.submit("gate", {})
    job = service.submit("echo", {}, after=[before.id])
    service.cancel(before.id)
    failed = service.wait(job.id, PATIENCE)
    assert (failed.status, failed.error_type) == ("failed", "ConflictError")
    assert "was cancelled" in (failed.error or "")


def test_jobs_may_wait_for_what_is_over(service: JobService, gate: Gate) -> None:
    gate.open()
    good = service.wait(service.submit("echo", {"n": 1}).id, PATIENCE)
    bad = service.wait(service.submit("gate", {"error": "no"}).id, PATIENCE)
    assert service.wait(service.submit("echo", {"n": 2}, after=[good.id]).id, PATIENCE).status == "succeeded"
    assert service.submit("echo", {"n": 3}, after=[good.id, bad.id]).status == "failed"


def test_a_job_cannot_wait_for_one_that_there_is_not(service: JobService) -> None:
    with pytest.raises(NotFoundError, match="'nowhere'"):
        service.submit("echo", {}, after=["nowhere"])
    assert service.list() == []


# ---------------------------------------------------------------------- parents


def test_a_parent_lists_what_became_of_each_entry(service: JobService, gate: Gate) -> None:
    gate.open()
    parent = service.submit_batch("batch", [("echo", {"n": 1}), ("gate", {"error": "no"}), ("echo", {"n": 2})])
    assert len(parent.children) == 3
    final = service.wait(parent.id, PATIENCE)
    assert (final.status, final.progress, final.attempts) == ("succeeded", 1.0, 0)
    assert final.result == {
        "jobs": [
            {"id": parent.children[0], "status": "succeeded", "result": {"echo": {"n": 1}}},
            {
                "id": parent.children[1],
                "status": "failed",
                "error": "RuntimeError: no",
                "error_type": "InternalError",
            },
            {"id": parent.children[2], "status": "succeeded", "result": {"echo": {"n": 2}}},
        ]
    }
    assert {service.get(child).parent_id for child in parent.children} == {parent.id}


def test_a_parent_fails_only_with_all_its_children(service: JobService, gate: Gate) -> None:
    gate.open()
    parent = service.submit_batch("batch", [("gate", {"error": "first"}), ("gate", {"error": "second"})])
    final = service.wait(parent.id, PATIENCE)
    assert (final.status, final.error_type) == ("failed", "InternalError")
    assert final.error == "None of the 2 jobs succeeded; the first that failed: RuntimeError: first"
    assert [entry["status"] for entry in (final.result or {})["jobs"]] == ["failed", "failed"]


def test_a_parent_shows_the_progress_of_its_children_together(service: JobService, gate: Gate) -> None:
    parent = service.submit_batch("batch", [("gate", {"done": 50}), ("gate", {"done": 10}), ("gate", {"n": 3})])
    gate.wait_for_starts(2)
    while (seen := service.get(parent.id)).bytes_done < 60:
        pass
    assert (seen.status, seen.bytes_done, seen.bytes_total) == ("running", 60, 200)
    assert seen.progress == pytest.approx(0.2)
    assert seen.started_at is not None
    gate.open()
    final = service.wait(parent.id, PATIENCE)
    assert (final.bytes_done, final.bytes_total, final.progress) == (60, 300, 1.0)


def test_cancelling_a_parent_cancels_its_children(service: JobService, gate: Gate) -> None:
    parent = service.submit_batch("batch", [("gate", {"n": n}) for n in range(4)])
    gate.wait_for_starts(2)
    service.cancel(parent.id)
    final = service.wait(parent.id, PATIENCE)
    assert final.status == "cancelled"
    assert [service.get(child).status for child in parent.children] == ["cancelled"] * 4
    assert [entry["status"] for entry in (final.result or {})["jobs"]] == ["cancelled"] * 4
    assert len(gate.starts) == 2


@pytest.mark.parametrize("asked", ["before", "after", "by another batch"])
def test_a_child_that_somebody_else_asked_for_goes_on(service: JobService, gate: Gate, asked: str) -> None:
    entries: list[tuple[str, Json]] = [("gate", {"n": 1}), ("gate", {"n": 2})]
    if asked == "before":
        service.submit("gate", {"n": 1})
    parent = service.submit_batch("batch", entries)
    if asked == "after":
        service.submit("gate", {"n": 1})
    if asked == "by another batch":
        service.submit_batch("batch", entries[:1])
    assert len(service.list(kind="gate")) == 2
    service.cancel(parent.id)
    assert service.wait(parent.id, PATIENCE).status == "cancelled"
    gate.open()
    ends = [service.wait(child, PATIENCE).status for child in parent.children]
    assert ends == ["succeeded", "cancelled"]


def test_equal_entries_of_a_batch_are_one_job(service: JobService) -> None:
    parent = service.submit_batch("batch", [("echo", {"n": 1}), ("echo", {"n": 1})])
    final = service.wait(parent.id, PATIENCE)
    assert parent.children[0] == parent.children[1]
    assert len((final.result or {})["jobs"]) == 2
    assert len(service.list(kind="echo")) == 1


def test_the_same_unfinished_batch_is_one_parent(service: JobService, gate: Gate) -> None:
    entries: list[tuple[str, Json]] = [("gate", {"n": 1}), ("gate", {"n": 2})]
    assert service.submit_batch("batch", entries).id == service.submit_batch("batch", entries).id
    assert len(service.list()) == 3


def test_an_empty_batch_is_refused(service: JobService) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        service.submit_batch("batch", [])


def test_a_child_cancelled_by_itself_leaves_the_parent_to_the_others(service: JobService, gate: Gate) -> None:
    parent = service.submit_batch("batch", [("gate", {"n": 1}), ("gate", {"n": 2})])
    gate.wait_for_starts(2)
    service.cancel(parent.children[0])
    service.wait(parent.children[0], PATIENCE)
    gate.open()
    final = service.wait(parent.id, PATIENCE)
    assert final.status == "succeeded"
    assert [entry["status"] for entry in (final.result or {})["jobs"]] == ["cancelled", "succeeded"]


def test_a_large_batch_ends_whole_while_others_look_on(open_service: Open) -> None:
    service = open_service({"echo": lambda job, request: {"echo": request}})
    parent = service.submit_batch("batch", [("echo", {"n": n}) for n in range(100)])
    seen: list[tuple[float, str]] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            job = service.get(parent.id)
            seen.append((job.progress, job.status))
            time.sleep(0.001)

    looking = threading.Thread(target=look)
    looking.start()
    final = service.wait(parent.id, PATIENCE)
    over.set()
    looking.join()
    results: Any = (final.result or {})["jobs"]
    assert [entry["result"]["echo"]["n"] for entry in results] == list(range(100))
    assert [progress for progress, _ in seen] == sorted(progress for progress, _ in seen)
