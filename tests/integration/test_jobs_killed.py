"""Jobs whose process is killed at random moments: each is carried out, and nothing that was done is done again."""

import collections
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.core.jobs import Job, JobService
from tests.killing import kill_at_random, run_undisturbed

ROOT = Path(__file__).resolve().parents[2]
KILLS = 50
DONE = {"planned": "plan", "copied": "copy", "assembled": "assemble"}

# Has rounds of work carried out, one after the other: three copies under a parent, and a job that joins them.
# Each step is logged in the order in which it happens; a step that is done is on disk before it is logged.
ROUNDS = """
import hashlib, json, os, sys, time
from pathlib import Path
from src.core.jobs import JobService

data_dir, work, ends = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "finish"
log = os.open(work / "steps.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def tell(*words):
    os.write(log, (json.dumps(words) + "\\n").encode())

def place(path, data):
    temp = path.with_name(path.name + ".partial")
    with open(temp, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)

def chunk_of(request, n):
    return hashlib.sha256(f"{request} {n}".encode()).digest() * 2000

def copy(job, request):
    tell("run", job.id)
    folder = work / request["name"]
    folder.mkdir(exist_ok=True)
    if "chunks" not in job.notes:
        tell("plan", job.id)
        time.sleep(0.01)
        job.note("chunks", 8)
        tell("planned", job.id)
    for n in range(job.notes["chunks"]):
        job.progress(n, job.notes["chunks"])
        if not (folder / str(n)).exists():
            tell("copy", job.id, n)
            time.sleep(0.005)
            place(folder / str(n), chunk_of(request["name"], n))
            tell("copied", job.id, n)
    if not (folder / "whole").exists():
        tell("assemble", job.id)
        time.sleep(0.01)
        place(folder / "whole", b"".join((folder / str(n)).read_bytes() for n in range(job.notes["chunks"])))
        tell("assembled", job.id)
    return {"sha256": hashlib.sha256((folder / "whole").read_bytes()).hexdigest()}

def join(job, request):
    tell("run", job.id)
    for n, name in enumerate(request["names"]):
        tell("join", job.id, n)
        job.progress(n, len(request["names"]))
        (work / name / "whole").stat()
        time.sleep(0.01)
    return {"joined": len(request["names"])}

def new_round(service):
    number = sum(job.children != () for job in service.list(limit=10_000))
    names = [f"{number}-{n}" for n in range(3)]
    parent = service.submit_batch("round", [("copy", {"name": name}) for name in names])
    end = service.submit("join", {"names": names}, after=[parent.id])
    tell("submitted", *parent.children, parent.id, end.id)

service = JobService(data_dir, {"copy": copy, "join": join}, keep_jobs=10_000)
tell("begin")
service.start()
while True:
    unfinished = [job for job in service.list(limit=10_000) if not job.finished]
    if len(unfinished) <= 1 and not (ends and service.list(limit=1)):
        new_round(service)
    elif unfinished:
        service.wait(unfinished[0].id)
    else:
        break
service.stop()
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    work = tmp_path / "work"
    work.mkdir()
    return tmp_path / "data", work


def command(folders: tuple[Path, Path], mode: str) -> list[str]:
    return [sys.executable, "-c", ROUNDS, *map(str, folders), mode]


def steps(work: Path) -> list[list[str | int]]:
    """What the processes did, in order; a line that a kill cut off is left out."""
    lines = (work / "steps.log").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def undisturbed_seconds(tmp_path: Path) -> float:
    """How long a process takes for one round of its own, from its start to its end."""
    folders = tmp_path / "undisturbed" / "data", tmp_path / "undisturbed" / "work"
    folders[1].mkdir(parents=True)
    return run_undisturbed(command(folders, "finish"), log=tmp_path / "undisturbed.log", cwd=ROOT)


@pytest.mark.slow
def test_jobs_killed_at_random_moments_end_well_and_do_nothing_twice(
    tmp_path: Path, folders: tuple[Path, Path], figure: Callable[[str], None]
) -> None:
    data_dir, work = folders
    log = tmp_path / "processes.log"
    span = undisturbed_seconds(tmp_path)
    jobs = JobService(data_dir, {})
    finished: dict[str, Job] = {}
    phases: collections.Counter[str] = collections.Counter()

    def look(kill: int) -> None:
        phases[str(steps(work)[-1][0]) if (work / "steps.log").exists() else "start"] += 1
        now = {job.id: job for job in jobs.list(limit=10_000)}
        assert {job_id: now[job_id] for job_id in finished} == finished  # what has ended stays as it is
        finished.update({job.id: job for job in now.values() if job.finished})

    killed = kill_at_random(command(folders, "go on"), times=KILLS, span=span, log=log, after_kill=look, cwd=ROOT)
    run_undisturbed(command(folders, "finish"), log=log, cwd=ROOT)

    everything = {job.id: job for job in jobs.list(limit=10_000)}
    ends = collections.Counter((job.status, job.error_type) for job in everything.values())
    done = steps(work)
    submitted = {job_id for step in done if step[0] == "submitted" for job_id in step[1:]}
    deaths = sum(max(0, job.attempts - 1) for job in everything.values())
    figure(f"{killed}, each within the {span:.2f} s that all phases take")
    figure(f"last steps before the kills: {dict(phases.most_common())}")
    figure(f"{len(everything)} jobs, run again after a kill {deaths} times; ends: {dict(ends)}")
    assert len(killed.moments) == KILLS
    assert deaths > 0
    assert submitted <= everything.keys()
    assert all(job.status == "succeeded" or died_too_often(job, everything) for job in everything.values())
    assert sum(job.status == "succeeded" for job in everything.values()) > 0.9 * len(everything)
    assert done_again(done) == []


def died_too_often(job: Job, everything: dict[str, Job]) -> bool:
    """Whether a job failed in one of the two clear ways that are left: by its process, or with what it waited for."""
    if job.error_type == "ProcessDiedError":
        return job.attempts >= 5
    return any(everything[other].status == "failed" for other in (*job.after, *job.children))


def done_again(done: list[list[str | int]]) -> list[list[str | int]]:
    """Steps that were begun or done after they had been done, by the same process or a later one."""
    over: set[tuple[str | int, ...]] = set()
    again = []
    for name, *what in done:
        step = (DONE.get(str(name), name), *what)
        if step in over:
            again.append([name, *what])
        if name in DONE:
            over.add(step)
    return again
