"""Watching a job: over broken connections, on a terminal, and until the user has seen enough."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from typer.testing import Result

from src.cli import watching
from src.cli.connection import Connection
from src.cli.failures import UnreachableError
from src.cli.session import Session
from tests.service import ROOT, free_port, wait_until
from tests.unit.cli.stub_service import Stub, events, failure, job

Run = Callable[..., Result]
EVENTS = "/jobs/j1/events"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.01)
    stub.on("GET", "/jobs/j1", job("running"))


def one_after_another(*answers: Response) -> Callable[[Request], Response]:
    left = list(answers)
    return lambda _: left.pop(0)


def test_a_job_is_watched_over_a_restart_of_the_service(aiml: Run, stub: Stub) -> None:
    away = failure(503, "DrainingError", "the service is stopping")
    cut = events(job("running"))
    stub.on("GET", EVENTS, one_after_another(cut, away, events(job("running"), job("succeeded", result={}))))
    done = aiml("jobs", "watch", "j1", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["status"] == "succeeded"


def test_a_service_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 0.1)
    session = Session()
    session.connection = Connection(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnreachableError, match="No service answers"):
        watching.watch(session, job("running"), "x")
    session.close()


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (job("failed", error="there is no room", error_type="StoreError"), "there is no room"),
        (job("cancelled"), "The job j1 was cancelled"),
    ],
)
def test_a_job_that_did_not_succeed_is_a_failure(aiml: Run, stub: Stub, ended: dict[str, Any], said: str) -> None:
    stub.on("GET", EVENTS, events(ended))
    done = aiml("jobs", "watch", "j1", "--json")
    assert (done.exit_code, done.stderr) == (1, f"error: {said}\n")
    assert json.loads(done.stdout)["status"] == ended["status"]


def test_a_job_that_is_over_is_not_watched(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/jobs/j1", job("succeeded", result={"commit_id": "abc"}))
    done = aiml("jobs", "watch", "j1")
    assert [line.split() for line in done.stdout.splitlines()][-1] == ["commit_id", "abc"]
    assert len(stub.asked) == 1


def test_a_job_that_is_not_there_is_told_at_once(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/jobs/j%2F2", failure(404, "NotFoundError", "There is no job j/2"))
    assert aiml("jobs", "watch", "j/2").stderr == "error: There is no job j/2\n"


def test_a_cancelled_job_may_take_a_moment(aiml: Run, stub: Stub) -> None:
    stub.on("POST", "/jobs/j1/cancel", job("running", cancelling=True))
    assert "being cancelled" in aiml("jobs", "cancel", "j1").stdout


def test_an_upload_that_is_broken_off_says_so(
    aiml: Run, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "send", interrupted)
    (tmp_path / "a.gguf").write_bytes(b"x")
    done = aiml("models", "upload", str(tmp_path / "a.gguf"))
    assert (done.exit_code, done.stderr) == (
        130,
        "The upload was broken off; the service keeps nothing of an incomplete one.\n",
    )


class Held:
    """A stream of events that stays open after its first until it is let go."""

    def __init__(self, first: dict[str, Any]) -> None:
        self._first = first
        self.go_on = threading.Event()

    def __call__(self, _: Request) -> Response:
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        yield f"data: {json.dumps(self._first)}\n\n"
        while not self.go_on.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        yield f"data: {json.dumps(job('succeeded', result={'name': 'a', 'size': '4.0 MB'}))}\n\n"


@pytest.fixture
def held(stub: Stub) -> Held:
    facts = {"bytes_done": 2_000_000, "bytes_total": 4_000_000, "bytes_per_second": 1e6, "eta_seconds": 62.0}
    stream = Held(job("running", **facts))
    stub.on("POST", "/models/download", job("queued"))
    stub.on("GET", EVENTS, stream)
    return stream


def start_download(stub: Stub, stderr: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "AIML_URL": stub.url, "COLUMNS": "120", "TERM": "xterm"}
    command = [sys.executable, "-m", "src.cli", "models", "download", "a"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
    )


def test_an_interrupted_watch_leaves_the_job_running(stub: Stub, held: Held) -> None:
    process = start_download(stub, subprocess.PIPE)
    wait_until(lambda: any(asked.path == EVENTS for asked in stub.asked), 60, "the job to be watched")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    held.go_on.set()
    assert (process.returncode, out) == (130, "")
    assert "The job goes on. To watch it: aiml jobs watch j1; to stop it: aiml jobs cancel j1" in err
    assert "Traceback" not in err
    assert not any("cancel" in asked.path for asked in stub.asked)


def test_a_terminal_shows_bytes_speed_and_time_left(stub: Stub, held: Held) -> None:
    terminal, other_end = pty.openpty()
    process = start_download(stub, other_end)
    os.close(other_end)
    shown = ""
    while "2.0 MB/4.0 MB  1.0 MB/s  1:02 left" not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    held.go_on.set()
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert (process.returncode, out) == (0, "'a' has arrived (4.0 MB)\n")
