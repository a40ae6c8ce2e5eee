"""A job from its request to its result or error."""

import json
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import InvalidInputError, NotFoundError, QueueFullError, ValidationError
from src.core.jobs import Job, JobContext, JobService
from src.core.jobs.table import JobTable
from tests.unit.core.jobs.handlers import PATIENCE, Gate, Json, Open


def test_a_job_ends_with_the_result_of_its_handler(service: JobService) -> None:
    job = service.wait(service.submit("echo", {"name": "a", "many": (1, 2)}).id, PATIENCE)
    assert (job.status, job.result) == ("succeeded", {"echo": {"name": "a", "many": [1, 2]}})
    assert (job.attempts, job.progress, job.error) == (1, 1.0, None)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at


def test_what_people_see_of_a_job_is_plain_json(service: JobService) -> None:
    seen = service.wait(service.submit("echo", {}).id, PATIENCE).to_json()
    assert json.loads(json.dumps(seen)) == json.loads(json.dumps(seen, default=str))
    shown = "id kind status request parent_id children bytes_done bytes_total bytes_per_second eta_seconds progress"
    more = "created_at started_at finished_at result error error_type attempts"
    assert {*shown.split(), *more.split()} <= seen.keys()
    assert seen.keys().isdisjoint({"notes", "deaths", "shared"})


def test_an_expected_error_keeps_its_name_words_and_details(open_service: Open) -> None:
    def missing(job: JobContext, request: Json) -> Json:
        raise NotFoundError("There is no such revision", details={"path": Path("/a"), "known": ["main"]})

    service = open_service({"missing": missing})
    job = service.wait(service.submit("missing", {}).id, PATIENCE)
    assert (job.status, job.error_type, job.error) == ("failed", "NotFoundError", "There is no such revision")
    assert job.error_details == {"path": "/a", "known": ["main"]}


@pytest.mark.parametrize("error", [RuntimeError("the wire is cut"), SystemExit("the wire is cut")])
def test_another_error_is_told_and_logged_and_the_next_job_runs(
    open_service: Open, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def failing(job: JobContext, request: Json) -> Json:
        if request["fails"]:
            raise error
        return {}

    service = open_service({"failing": failing}, concurrency=1)
    job = service.wait(service.submit("failing", {"fails": True}).id, PATIENCE)
    assert (job.status, job.error_type) == ("failed", "InternalError")
    assert job.error == f"{type(error).__name__}: the wire is cut"
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)
    assert service.wait(service.submit("failing", {"fails": False}).id, PATIENCE).status == "succeeded"


def test_an_error_that_no_text_can_hold_is_told_all_the_same(
    open_service: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1, "src.core.jobs")  # pytest-xdist cannot carry such a text either

    def failing(job: JobContext, request: Json) -> Json:
        raise OSError("cannot read \udcff")

    service = open_service({"failing": failing})
    job = service.wait(service.submit("failing", {}).id, PATIENCE)
    assert (job.error or "").encode() == b"OSError: cannot read \\udcff"


@pytest.mark.parametrize("result", [{"a": object()}, {"a": float("nan")}, ["no", "object"], None])
def test_a_result_that_is_no_json_object_is_the_handlers_fault(open_service: Open, result: Any) -> None:
    service = open_service({"odd": lambda job, request: result})
    job = service.wait(service.submit("odd", {}).id, PATIENCE)
    assert (job.status, job.error_type) == ("failed", "InternalError")
    assert "odd" in (job.error or "")


@pytest.mark.parametrize("request_", [{"a": object()}, {"a": float("nan")}])
def test_a_request_that_is_no_json_is_refused(service: JobService, request_: Json) -> None:
    with pytest.raises(InvalidInputError, match="plain JSON"):
        service.submit("echo", request_)
    assert service.list() == []


def test_an_unknown_kind_is_refused_with_the_known_ones(service: JobService) -> None:
    with pytest.raises(ValidationError, match=r"'eco'.* echo, gate"):
        service.submit("eco", {})
    with pytest.raises(ValidationError, match="'eco'"):
        service.submit_batch("batch", [("echo", {}), ("eco", {})])
    assert service.list() == []


def test_a_handler_that_changes_its_request_changes_nothing_else(open_service: Open) -> None:
    def careless(job: JobContext, request: Json) -> Json:
        request["names"].clear()
        return {}

    service = open_service({"careless": careless})
    given = {"names": ["a"]}
    job = service.wait(service.submit("careless", given).id, PATIENCE)
    assert job.request == given == {"names": ["a"]}


def test_no_more_jobs_run_at_once_than_allowed_and_the_oldest_first(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate}, concurrency=2)
    jobs = [service.submit("gate", {"n": n}) for n in range(5)]
    gate.wait_for_starts(2)
    assert [service.get(job.id).status for job in jobs] == ["running"] * 2 + ["queued"] * 3
    gate.open()
    assert {service.wait(job.id, PATIENCE).status for job in jobs} == {"succeeded"}
    assert gate.most_at_once == 2
    assert sorted(start["n"] for start in gate.starts[:2]) == [0, 1]


def test_progress_shows_while_a_job_runs(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {"done": 40})
    while (seen := service.get(job.id)).bytes_done == 0:
        pass
    assert (seen.status, seen.bytes_done, seen.bytes_total, seen.progress) == ("running", 40, 100, 0.4)
    [listed] = service.list(status="running")
    assert listed.bytes_done == 40
    gate.open()
    final = service.wait(job.id, PATIENCE)
    assert (final.bytes_done, final.bytes_total, final.progress) == (40, 100, 1.0)
    assert (final.bytes_per_second, final.eta_seconds) == (0.0, None)


def test_progress_costs_few_writes(open_service: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = JobTable.save

    def counted(table: JobTable, jobs: Iterable[Job]) -> None:
        saved.append(1)
        save(table, jobs)

    monkeypatch.setattr(JobTable, "save", counted)

    def busy(job: JobContext, request: Json) -> Json:
        before, started = len(saved), time.monotonic()
        for done in range(100_000):
            job.progress(done, 100_000)
        return {"wrote": len(saved) - before, "seconds": time.monotonic() - started}

    service = open_service({"busy": busy})
    result = service.wait(service.submit("busy", {}).id, PATIENCE).result
    assert result is not None
    assert 1 <= result["wrote"] <= 3 + result["seconds"]


def test_the_same_unfinished_request_is_one_job(service: JobService, gate: Gate) -> None:
    first = service.submit("gate", {"a": 1, "b": [2]})
    assert service.submit("gate", {"b": [2], "a": 1}).id == first.id
    assert service.submit("gate", {"b": [2], "a": 2}).id != first.id
    gate.open()
    service.wait(first.id, PATIENCE)
    assert service.submit("gate", {"a": 1, "b": [2]}).id != first.id


def test_the_same_request_from_many_threads_is_one_job(service: JobService, gate: Gate) -> None:
    barrier, ids = threading.Barrier(16), []

    def submit() -> None:
        barrier.wait()
        ids.append(service.submit("gate", {"name": "same"}).id)

    threads = [threading.Thread(target=submit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 16
    assert len(set(ids)) == 1
    assert len(service.list()) == len(gate.starts) == 1


def test_past_the_bound_jobs_are_refused(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate}, most_unfinished=3)
    first = service.submit("gate", {"n": 0})
    with pytest.raises(QueueFullError, match="more than 3"):
        service.submit_batch("batch", [("gate", {"n": n}) for n in (1, 2)])
    service.submit("gate", {"n": 1})
    service.submit("gate", {"n": 2})
    with pytest.raises(QueueFullError):
        service.submit("gate", {"n": 3})
    assert service.submit("gate", {"n": 0}).id == first.id
    assert len(service.list()) == 3


def test_a_list_is_newest_first_and_filtered(service: JobService, gate: Gate) -> None:
    done = [service.wait(service.submit("echo", {"n": n}).id, PATIENCE).id for n in range(3)]
    open_ = [service.submit("gate", {"n": n}).id for n in range(3)]
    gate.wait_for_starts(2)

    def ids(jobs: list[Job]) -> list[str]:
        return [job.id for job in jobs]

    assert ids(service.list()) == [*reversed(open_), *reversed(done)]
    assert ids(service.list(limit=4)) == [*reversed(open_), done[-1]]
    assert ids(service.list(kind="echo", limit=2)) == [done[2], done[1]]
    assert ids(service.list(status="queued")) == [open_[2]]
    assert ids(service.list(status="succeeded", kind="gate")) == []
    with pytest.raises(ValidationError, match=r"'done'.*queued"):
        service.list(status="done")


def test_unfinished_jobs_are_found_by_what_they_are_to_do(service: JobService, gate: Gate) -> None:
    service.wait(service.submit("echo", {"n": 1}).id, PATIENCE)
    ids = {service.submit("gate", {"n": n}).id for n in range(4)}
    assert {job.id for job in service.unfinished("gate", lambda job: True)} == ids
    assert [job.request for job in service.unfinished("gate", lambda job: job.request["n"] == 3)] == [{"n": 3}]
    assert service.unfinished("echo", lambda job: True) == []


def test_a_job_that_there_is_not_is_not_found(service: JobService) -> None:
    for ask in (service.get, service.wait, service.cancel):
        with pytest.raises(NotFoundError, match="'nowhere'"):
            ask("nowhere")


def test_waiting_ends_with_the_time_allowed(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {})
    gate.wait_for_starts(1)
    assert service.wait(job.id, 0.05).status == "running"
    assert service.wait(job.id, 0).status == "running"


def test_waiting_ends_when_the_service_stops(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {})
    seen: list[Job] = []
    waiting = threading.Thread(target=lambda: seen.append(service.wait(job.id)), daemon=True)
    waiting.start()
    gate.wait_for_starts(1)
    service.stop()
    waiting.join(PATIENCE)
    assert [job.finished for job in seen] == [False]


def test_nothing_runs_where_nothing_is_to_be_done(service: JobService) -> None:
    service.wait(service.submit("echo", {}).id, PATIENCE)
    for thread in threading.enumerate():
        if thread.name.startswith("aiml-job"):
            thread.join(PATIENCE)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("aiml-job")]
