"""`aiml jobs`: the service's long work."""

from typing import Annotated, Any

import typer

from src.cli.output import print_table, say, size_text, time_text
from src.cli.session import Session, command
from src.cli.watching import job_path, watch

JsonObject = dict[str, Any]

group = typer.Typer(no_args_is_help=True, help="Downloads, uploads and other long work of the service.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


@command(group, "list")
def list_jobs(
    session: Session,
    status: Annotated[
        str | None, typer.Option(help="Only queued, running, succeeded, failed or cancelled ones.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
) -> None:
    """List jobs, the newest first."""
    session.show(session.connection.get("/jobs", status=status, limit=limit), _print_jobs)


@command(group, "show")
def show_job(session: Session, job_id: JobId) -> None:
    """Tell how a job is."""
    session.show(session.connection.get(job_path(job_id)), print_job)


@command(group, "watch")
def watch_job(session: Session, job_id: JobId) -> None:
    """Follow a job until it has ended."""
    job = session.connection.get(job_path(job_id))
    session.show(watch(session, job, job["kind"]), print_job)


@command(group, "cancel")
def cancel_job(session: Session, job_id: JobId) -> None:
    """Cancel a job."""
    session.show(session.connection.post(f"{job_path(job_id)}/cancel"), print_job)


def started(job: JsonObject) -> None:
    """Says that a job is under way, and how to follow it."""
    say(f"Job {job['id']} is {job['status']}. To watch it: aiml jobs watch {job['id']}")


def print_job(job: JsonObject) -> None:
    """Prints one job."""
    shown = {
        "Job": job["id"],
        "Kind": job["kind"],
        "Status": _status(job),
        "Done": _done(job),
        "Begun": time_text(job["created_at"]),
        "Ended": time_text(job.get("finished_at")),
        "Error": job.get("error"),
        **{name: value for name, value in (job.get("result") or {}).items() if isinstance(value, str | int | float)},
    }
    print_table(("", ""), [(name, value) for name, value in shown.items() if value not in (None, "")])


def _print_jobs(jobs: list[JsonObject]) -> None:
    rows = (
        (job["id"], job["kind"], _status(job), _done(job), time_text(job["created_at"]), job.get("error"))
        for job in jobs
    )
    print_table(("Job", "Kind", "Status", "Done", "Begun", "Error"), rows, nothing="There are no jobs.")


def _status(job: JsonObject) -> str:
    return "being cancelled" if job.get("cancelling") and job["status"] == "running" else str(job["status"])


def _done(job: JsonObject) -> str:
    if job.get("bytes_total"):
        return f"{size_text(job['bytes_done'])} of {size_text(job['bytes_total'])}"
    return size_text(job["bytes_done"]) if job["bytes_done"] else ""
