"""What the end of a process leaves, and the next start."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.core.errors import DrainingError, NotFoundError
from src.core.jobs import JobCancelled, JobContext, JobService, JobsUnavailableError
from tests.unit.core.jobs.handlers import PATIENCE, Gate, Json, Open

ROOT = Path(__file__).resolve().parents[4]

# Submits what it is told, waits until one of the jobs runs, and dies by SIGKILL.
DIES = """
import json, os, signal, sys, time
from pathlib import Path
from src.core.jobs import JobService

begun = []

def deadly(job, request):
    seen = [*job.notes.get("seen", []), request["name"]]
    job.note("seen", seen)
    if request["name"] == "further":
        job.progress(len(seen), 100)
    begun.append(job.id)
    while True:
        time.sleep(1)

service = JobService(Path(sys.argv[1]), {"deadly": deadly}, concurrency=1)
service.start()
ids = [service.submit("deadly", {"name": name}).id for name in sys.argv[3:]]
while not begun and not all(service.get(job_id).finished for job_id in ids):
    time.sleep(0.005)
if sys.argv[2] == "cancel":
    service.cancel(begun[0])
print(json.dumps(ids), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(data_dir: Path, *names: str, how: str = "leave") -> None:
    """A process with jobs of these names dies while the first unfinished one runs."""
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(data_dir), how, *names], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -9, done.stderr


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_what_ran_and_what_waited_when_the_process_died_is_carried_out(open_service: Open, data_dir: Path) -> None:
    killed(data_dir, "a", "b")
    asleep = JobService(data_dir, {})
    assert {job.request["name"]: job.status for job in asleep.list()} == {"a": "running", "b": "queued"}
    service = open_service({"deadly": lambda job, request: {"notes": job.notes}})
    ends = {job.request["name"]: service.wait(job.id, PATIENCE) for job in service.list()}
    assert {job.status for job in ends.values()} == {"succeeded"}
    assert ends["a"].result == {"notes": {"seen": ["a"]}}
    assert (ends["a"].attempts, ends["b"].attempts) == (2, 1)


def test_a_job_that_runs_whenever_the_process_dies_is_given_up(open_service: Open, data_dir: Path) -> None:
    for _ in range(5):
        killed(data_dir, "a")
    ran: list[Json] = []
    service = open_service({"deadly": lambda job, request: ran.append(request) or {}})  # type: ignore[func-returns-value]
    [job] = service.list()
    assert (job.status, job.error_type, job.attempts) == ("failed", "ProcessDiedError", 5)
    assert "died 5 times" in (job.error or "")
    assert ran == []
    again = service.wait(service.submit("deadly", {"name": "a"}).id, PATIENCE)
    assert (again.id != job.id, again.status) == (True, "succeeded")


def test_a_job_that_gets_further_each_time_is_not_given_up(open_service: Open, data_dir: Path) -> None:
    for _ in range(7):
        killed(data_dir, "further")
    service = open_service({"deadly": lambda job, request: {"seen": len(job.notes["seen"])}})
    [job] = service.list()
    done = service.wait(job.id, PATIENCE)
    assert (done.status, done.result, done.attempts) == ("succeeded", {"seen": 7}, 8)


def test_a_cancellation_outlives_the_process_for_the_handler_to_clear_up(open_service: Open, data_dir: Path) -> None:
    killed(data_dir, "a", how="cancel")
    cleared: list[str] = []

    def tidy(job: JobContext, request: Json) -> Json:
        try:
            job.progress(0, 1)
        except JobCancelled:
            cleared.append(request["name"])
            raise
        return {}

    service = open_service({"deadly": tidy})
    [job] = service.list()
    assert service.wait(job.id, PATIENCE).status == "cancelled"
    assert cleared == ["a"]


def test_a_stop_interrupts_and_the_next_start_goes_on(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate}, concurrency=1)
    running, waiting = (service.submit("gate", {"n": n}).id for n in (1, 2))
    gate.wait_for_starts(1)
    service.stop()
    assert [service.get(job).status for job in (running, waiting)] == ["queued", "queued"]
    gate.open()
    service.start()
    assert [service.wait(job, PATIENCE).attempts for job in (running, waiting)] == [2, 1]
    assert [start["n"] for start in gate.starts] == [1, 1, 2]


def test_stops_are_no_deaths(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate})
    job = service.submit("gate", {})
    for start in range(7):
        gate.wait_for_starts(start + 1)
        service.stop()
        service.start()
    gate.open()
    assert service.wait(job.id, PATIENCE).status == "succeeded"


def test_a_parent_goes_on_after_a_stop(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate, "echo": lambda job, request: {"echo": request}})
    parent = service.submit_batch("batch", [("echo", {"n": 1}), ("gate", {"n": 2}), ("gate", {"n": 3})])
    end = service.submit("echo", {"n": 4}, after=[parent.id])
    service.wait(parent.children[0], PATIENCE)
    gate.wait_for_starts(2)
    service.stop()
    gate.open()
    service.start()
    entries = (service.wait(parent.id, PATIENCE).result or {})["jobs"]
    assert [entry["status"] for entry in entries] == ["succeeded"] * 3
    assert entries[0]["result"] == {"echo": {"n": 1}}
    assert service.wait(end.id, PATIENCE).status == "succeeded"


def test_a_handler_that_is_gone_fails_its_jobs_clearly(open_service: Open, gate: Gate) -> None:
    service = open_service({"gate": gate})
    job = service.submit("gate", {})
    service.stop()
    newer = open_service({"other": lambda job, request: {}})
    failed = newer.get(job.id)
    assert (failed.status, failed.error_type) == ("failed", "InternalError")
    assert "kind 'gate'" in (failed.error or "")


def test_before_the_start_and_after_the_stop_jobs_can_be_seen_but_not_submitted(
    open_service: Open, data_dir: Path
) -> None:
    service = JobService(data_dir, {"echo": lambda job, request: {}})
    assert service.list() == []
    with pytest.raises(NotFoundError):
        service.get("nowhere")
    with pytest.raises(JobsUnavailableError, match="has started"):
        service.submit("echo", {})
    assert not data_dir.exists()
    started = open_service({"echo": lambda job, request: {}})
    job = started.wait(started.submit("echo", {}).id, PATIENCE)
    started.stop()
    assert started.get(job.id) == service.get(job.id) == job
    assert service.list() == started.list() == [job]
    for refused in (lambda: started.submit("echo", {}), lambda: started.cancel(job.id)):
        with pytest.raises(DrainingError):
            refused()


def test_who_submits_while_the_service_starts_waits_for_it(data_dir: Path) -> None:
    service = JobService(data_dir, {"echo": lambda job, request: request})
    service.expect_start()
    starting = threading.Timer(0.5, service.start)
    starting.start()
    try:
        job = service.submit("echo", {"a": 1})
        assert service.wait(job.id, PATIENCE).result == {"a": 1}
    finally:
        starting.join()
        service.stop()


def test_a_second_service_on_the_folder_looks_on_and_takes_over(
    open_service: Open, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_service({"gate": gate})
    job = first.submit("gate", {})
    gate.wait_for_starts(1)
    second = open_service({"gate": gate})
    assert "Another process carries out the jobs" in caplog.text
    with pytest.raises(JobsUnavailableError, match="Another process"):
        second.submit("gate", {})
    assert second.get(job.id).status == "running"
    first.stop()
    gate.open()
    assert second.wait(job.id, PATIENCE).status == "succeeded"
    assert second.submit("gate", {"n": 2}).kind == "gate"


def test_a_handler_that_does_not_let_go_keeps_others_from_its_jobs(open_service: Open, data_dir: Path) -> None:
    begun: list[str] = []
    may_go = data_dir / "may-go"

    def deaf(job: JobContext, request: Json) -> Json:
        begun.append(job.id)
        while not may_go.exists():
            time.sleep(0.01)
        return {"attempt": len(begun)}

    first = open_service({"deaf": deaf})
    job = first.submit("deaf", {})
    first.stop(timeout=0.1)
    second = open_service({"deaf": deaf})
    with pytest.raises(JobsUnavailableError, match="Another process"):
        second.submit("deaf", {})
    may_go.touch()
    assert second.wait(job.id, PATIENCE).result == {"attempt": 1}


def test_several_services_in_one_process_have_nothing_in_common(open_service: Open, tmp_path: Path) -> None:
    services = [
        open_service({"where": lambda job, request, n=n: {"n": n}}, data_dir=tmp_path / str(n)) for n in range(5)
    ]
    results = [service.wait(service.submit("where", {}).id, PATIENCE).result for service in services]
    assert results == [{"n": n} for n in range(5)]
    assert [len(service.list()) for service in services] == [1] * 5


def test_an_import_brings_nothing_along(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from src.core.jobs import JobService; "
        f"service = JobService(Path({str(tmp_path)!r}), {{}}); service.start(); service.stop(); "
        "print([name for name in ('dbos', 'sqlalchemy', 'pydantic', 'fastapi', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
