"""The file of jobs: what is kept, and what happens when it cannot be written or believed."""

import logging
import os
import sqlite3
import stat
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from src.core.jobs import Job, JobService, JobsUnavailableError, table
from src.core.jobs.job import Status
from src.core.jobs.table import JobTable
from tests.unit.core.jobs.handlers import PATIENCE, Gate, Open

DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.db"


def plant(path: Path, *jobs: Job) -> None:
    """Writes jobs into the file."""
    file = JobTable(path)
    file.save(jobs)
    file.close()


def ended(age_days: float, status: Status = "succeeded", **fields: object) -> Job:
    """A job that was submitted and ended so long ago."""
    then = time.time() - age_days * DAY
    job = Job(kind="echo", request={"age": age_days}, status=status, created_at=then, finished_at=then)
    return replace(job, **fields)  # type: ignore[arg-type]


def write_connection(service: JobService) -> sqlite3.Connection:
    """The connection over which the service writes."""
    assert service._runner is not None
    return service._runner._board._table._connection


# ---------------------------------------------------------------------- what is kept


def test_a_job_comes_back_as_it_was_written(path: Path) -> None:
    job = ended(1, "failed", children=("a", "b"), after=("c",), notes={"revision": "é\udc00"}, error="no", deaths=2)
    plant(path, job)
    assert table.read_job(path, job.id) == job


def test_a_field_of_another_version_of_the_code_is_passed_over(path: Path) -> None:
    job = ended(1)
    plant(path, job)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET job = json_set(job, '$.later', 1)")
    plant(path)
    assert table.read_job(path, job.id) == job


def test_rows_are_readable_by_anybody(path: Path) -> None:
    plant(path, ended(1))
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT kind, status, json_extract(job, '$.request.age') FROM jobs").fetchone()
    assert row == ("echo", "succeeded", 1)


def test_commits_are_synced(open_service: Open) -> None:
    connection = write_connection(open_service({}))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_the_start_forgets_old_jobs(open_service: Open, path: Path) -> None:
    plant(path, *(ended(age) for age in (40, 31, 29, 1)))
    service = open_service({"echo": lambda job, request: {}})
    assert [job.request["age"] for job in service.list()] == [1, 29]


def test_the_start_forgets_the_oldest_of_too_many(open_service: Open, path: Path) -> None:
    plant(path, *(ended(age) for age in (4, 3, 2, 1)))
    service = open_service({"echo": lambda job, request: {}}, keep_jobs=2)
    assert [job.request["age"] for job in service.list()] == [1, 2]


def test_what_an_unfinished_job_refers_to_is_kept(open_service: Open, path: Path, gate: Gate) -> None:
    child, awaited = ended(90, result={"n": 1}), ended(80)
    running = Job(kind="gate", request={})
    parent = Job(kind="batch", request={}, children=(child.id, running.id))
    waiting = Job(kind="echo", request={}, after=(awaited.id, running.id))
    plant(path, child, awaited, running, parent, waiting, ended(70))
    service = open_service({"echo": lambda job, request: {}, "gate": gate})
    assert len(service.list()) == 5
    gate.open()
    assert service.wait(waiting.id, PATIENCE).status == "succeeded"
    entries = (service.wait(parent.id, PATIENCE).result or {})["jobs"]
    assert entries[0] == {"id": child.id, "status": "succeeded", "result": {"n": 1}}


def test_a_child_that_somebody_removed_counts_as_failed(open_service: Open, path: Path) -> None:
    left = Job(kind="echo", request={})
    parent = Job(kind="batch", request={}, children=("removed", left.id))
    plant(path, left, parent)
    service = open_service({"echo": lambda job, request: {}})
    entries = (service.wait(parent.id, PATIENCE).result or {})["jobs"]
    assert [(entry["id"], entry["status"]) for entry in entries] == [("removed", "failed"), (left.id, "succeeded")]


# ---------------------------------------------------------------------- a file that cannot be believed


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def damaged_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def damaged_row(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET job = 'no JSON'")


@pytest.mark.parametrize("damage", [garbage, damaged_page, damaged_row])
def test_a_damaged_file_is_set_aside(
    open_service: Open, path: Path, caplog: pytest.LogCaptureFixture, damage: "type[object]"
) -> None:
    plant(path, *(ended(n) for n in range(20)))
    damage(path)
    before = path.read_bytes()
    service = open_service({"echo": lambda job, request: {}})
    assert service.list() == []
    assert service.wait(service.submit("echo", {}).id, PATIENCE).status == "succeeded"
    [aside] = path.parent.glob("jobs.db.damaged-*")
    assert aside.read_bytes() == before
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "what was queued in it is lost" in warning.getMessage()
    assert aside.name in warning.getMessage()


# ---------------------------------------------------------------------- a file that cannot be written


def test_a_locked_file_is_a_clear_error_and_used_when_it_is_free(
    open_service: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_BUSY_SECONDS", 0.05)
    service = open_service({"echo": lambda job, request: {}})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JobsUnavailableError, match="holds it locked") as caught:
            service.submit("echo", {})
        assert (caught.value.retryable, caught.value.retry_after) == (True, 5.0)
        assert service.list() == []
    assert service.wait(service.submit("echo", {}).id, PATIENCE).status == "succeeded"


def test_a_file_that_is_locked_at_the_start_is_tried_again(
    open_service: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_BUSY_SECONDS", 0.05)
    left = Job(kind="echo", request={})
    plant(path, left)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        service = open_service({"echo": lambda job, request: {}})
        with pytest.raises(JobsUnavailableError, match="holds it locked"):
            service.submit("echo", {})
    assert service.wait(left.id, PATIENCE).status == "succeeded"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_clear_error(open_service: Open, path: Path) -> None:
    path.parent.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(JobsUnavailableError, match="cannot be written"):
        open_service({"echo": lambda job, request: {}}).submit("echo", {})


def test_a_folder_that_is_a_file_is_a_clear_error(open_service: Open, path: Path) -> None:
    path.parent.write_text("in the way")
    with pytest.raises(JobsUnavailableError, match="cannot be written"):
        open_service({"echo": lambda job, request: {}}).submit("echo", {})


def test_on_a_full_disk_nothing_is_taken_and_what_runs_ends_all_the_same(
    open_service: Open, path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service({"gate": gate, "echo": lambda job, request: {"much": "x" * 100_000}})
    running, other = service.submit("gate", {"n": 1}), service.submit("gate", {"n": 2})
    gate.wait_for_starts(2)
    [(pages,)] = write_connection(service).execute("PRAGMA page_count")
    write_connection(service).execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JobsUnavailableError, match="the disk is full; free some space"):
        service.submit("gate", {"much": "x" * 100_000})
    assert len(service.list()) == 2
    big = service.submit("echo", {})
    gate.open()
    assert service.wait(running.id, PATIENCE).status == "succeeded"
    assert service.wait(big.id, PATIENCE).status == "succeeded"
    assert "not written down for now" in caplog.text
    assert table.read_job(path, big.id) != service.get(big.id)

    write_connection(service).execute("PRAGMA max_page_count = 1000000")
    service.wait(service.submit("gate", {"n": 3}).id, PATIENCE)
    assert table.read_job(path, big.id) == service.get(big.id)
    assert service.wait(other.id, PATIENCE).status == "succeeded"


def test_what_the_full_disk_refused_is_written_at_the_stop(open_service: Open, path: Path) -> None:
    service = open_service({"echo": lambda job, request: {"much": "x" * 100_000}})
    [(pages,)] = write_connection(service).execute("PRAGMA page_count")
    write_connection(service).execute(f"PRAGMA max_page_count = {pages}")
    job = service.wait(service.submit("echo", {}).id, PATIENCE)
    write_connection(service).execute("PRAGMA max_page_count = 1000000")
    service.stop()
    assert table.read_job(path, job.id) == job
