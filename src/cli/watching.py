"""Watching jobs: a bar that the service's events move, and what happens when the connection or the user goes away."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from src.cli.failures import CommandError, UnreachableError
from src.cli.output import console, duration_text, say, size_text
from src.cli.session import INTERRUPTED, Session

if TYPE_CHECKING:
    from rich.progress import Progress

    from src.cli.connection import Connection

JsonObject = dict[str, Any]

FINISHED = ("succeeded", "failed", "cancelled")
PATIENCE = 60.0
"""Seconds that a service may be away while its job is watched: jobs outlive a restart."""
_PAUSE = 1.0
_RESTARTING = 503


def watch(session: Session, job: JsonObject, title: str) -> JsonObject:
    """Shows a job until it has ended and returns it; Ctrl-C leaves the job running and says so.

    Raises `CommandError` with the job's own sentence where it failed or was cancelled.
    """
    try:
        with _job_bar(title) as show:
            show(job)
            for state in _states(session.connection, job):
                show(job := state)
    except KeyboardInterrupt:
        say(f"The job goes on. To watch it: aiml jobs watch {job['id']}; to stop it: aiml jobs cancel {job['id']}")
        raise typer.Exit(INTERRUPTED) from None
    if job["status"] != "succeeded":
        raise CommandError(job.get("error") or f"The job {job['id']} was {job['status']}", answer=job)
    return job


@contextmanager
def upload_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how much of an upload is sent; the function it gives takes the bytes of each piece."""
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.update(task, advance=count)


def job_path(job_id: str) -> str:
    """Returns the route of a job."""
    return f"/jobs/{quote(job_id, safe='')}"


def _states(connection: "Connection", job: JsonObject) -> Iterator[JsonObject]:
    """Yields a job's states until it has ended, over as many connections as that takes."""
    seen_at = time.monotonic()
    while job["status"] not in FINISHED:
        try:
            for state in connection.events(f"{job_path(job['id'])}/events"):
                seen_at = time.monotonic()
                yield (job := state)
        except CommandError as exc:
            passing = isinstance(exc, UnreachableError) or exc.status == _RESTARTING
            if not passing or time.monotonic() - seen_at > PATIENCE:
                raise
        if job["status"] not in FINISHED:
            time.sleep(_PAUSE)


@contextmanager
def _job_bar(title: str) -> Iterator[Callable[[JsonObject], None]]:
    from rich.progress import TextColumn

    with _bar(TextColumn("{task.fields[facts]}", markup=False)) as bar:
        task = bar.add_task(title, total=None, facts="")
        yield lambda job: bar.update(
            task, completed=job["bytes_done"], total=job["bytes_total"] or None, facts=_facts(job)
        )


def _facts(job: JsonObject) -> str:
    """Returns what a bar cannot show: bytes, speed, and the time that is left."""
    if job["status"] != "running":
        return str(job["status"])
    done = size_text(job["bytes_done"])
    total = f"/{size_text(job['bytes_total'])}" if job["bytes_total"] else ""
    speed = f"  {size_text(job['bytes_per_second'])}/s" if job.get("bytes_per_second") else ""
    left = f"  {duration_text(job['eta_seconds'])} left" if job.get("eta_seconds") is not None else ""
    return f"{done}{total}{speed}{left}"


def _bar(*columns: Any) -> "Progress":
    """Returns a bar on stderr; it shows nothing where that is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn

    screen = console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    return Progress(title, BarColumn(), *columns, console=screen, disable=not screen.is_terminal)
