"""How jobs end: what a handler raised, a process that died, a job waited for that failed."""

import json
import logging
import time
from collections.abc import Container, Sequence
from dataclasses import replace

from src.core.errors import PlatformError
from src.core.jobs.context import JobCancelled, JobContext
from src.core.jobs.job import Job, JsonObject, Status

logger = logging.getLogger(__name__)

MOST_DEATHS = 5


def succeeded(job: Job, result: JsonObject) -> Job:
    """Returns the job with its result."""
    return replace(over(job, "succeeded"), result=result, progress=1.0)


def cancelled(job: Job) -> Job:
    """Returns the job as cancelled."""
    return replace(over(job, "cancelled"), error="The job was cancelled", error_type="CancelledError")


def raised(job: Job, context: JobContext, error: BaseException) -> Job:
    """Returns the job after its handler has let go with an error; queued again where the service stops.

    Of a job that was told to let go any error is taken for that: libraries make errors of their own of ours.
    """
    if context.cancelled or isinstance(error, JobCancelled):
        return cancelled(job)
    if context.interrupted:
        return replace(job, status="queued", started_at=None, deaths=0, bytes_per_second=0.0, eta_seconds=None)
    if isinstance(error, PlatformError):
        return failed(job, error.message, error.error_type, error.details)
    logger.error("job %s (%s) failed", job.id, job.kind, exc_info=error)
    return failed(job, f"{type(error).__name__}: {error}", "InternalError")


def after_a_death(job: Job) -> Job:
    """Returns the state of a job that ran when its process died: queued again, or failed where it keeps happening."""
    job = replace(job, deaths=job.deaths + 1)
    if job.deaths < MOST_DEATHS:
        logger.warning("job %s (%s) ran when the service died; it is run again", job.id, job.kind)
        return replace(job, status="queued", started_at=None)
    logger.error("job %s (%s) ran whenever the service died, %d times; it is given up", job.id, job.kind, job.deaths)
    if job.cancelling:
        return cancelled(job)
    message = (
        f"The service died {job.deaths} times in a row while this job ran without getting further, so it is not "
        "started again. Look into the log for the reason (often: out of memory), then submit it anew"
    )
    return failed(job, message, "ProcessDiedError")


def without_running(job: Job, awaited: Sequence[Job], handlers: Container[str]) -> Job | None:
    """Returns the end of a queued job that need not, or cannot, be run; None for one that can."""
    # A cancelled one that was started before has its handler run once more, to clear up.
    if job.cancelling and (job.attempts == 0 or job.kind not in handlers):
        return cancelled(job)
    if job.kind not in handlers:
        message = f"This version of the service has no jobs of the kind '{job.kind}'"
        return failed(job, message, "InternalError")
    lost = next((other for other in awaited if other.finished and other.status != "succeeded"), None)
    if lost is None or job.cancelling:
        return None
    waited = f"It waited for job {lost.id} ({lost.kind}), which"
    if lost.status == "cancelled":
        return failed(job, f"{waited} was cancelled", "ConflictError")
    message = f"{waited} failed: {lost.error}"
    return failed(job, message, lost.error_type or "InternalError", lost.error_details)


def failed(job: Job, message: str, error_type: str, details: JsonObject | None = None) -> Job:
    """Returns the job as failed, in words for its user."""
    text = message.encode("utf-8", "backslashreplace").decode()  # a path may hold what no text can
    plain = json.loads(json.dumps(details, default=str, skipkeys=True)) if details else None
    return replace(over(job, "failed"), error=text, error_type=error_type, error_details=plain)


def over(job: Job, status: Status) -> Job:
    """Returns the job as ended now."""
    return replace(
        job, status=status, finished_at=time.time(), bytes_per_second=0.0, eta_seconds=None, cancelling=False
    )
