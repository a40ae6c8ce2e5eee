"""`/jobs` (and `/models/jobs`): the long work that is queued, under way or done."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from src.api import schemas
from src.api.errors import error_named, json_response
from src.api.lifecycle_bodies import JobBody
from src.core.errors import ConflictError, DrainingError
from src.core.jobs import Job
from src.core.lifecycle.work import LifecycleJobs
from src.core.threads import in_thread


def router(work: LifecycleJobs) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(prefix="/jobs", tags=["jobs"])
    jobs = work.service

    async def existing(job_id: str) -> Job:
        return await in_thread(lambda: jobs.get(job_id))  # or 404, before the stream begins

    @routes.get("", response_model=None, responses={200: {"model": list[JobBody]}, **schemas.failures(401, 403, 422)})
    async def list_jobs(
        status: str | None = Query(None, description="queued, running, succeeded, failed or cancelled"),
        kind: str | None = Query(None),
        limit: int = Query(100, ge=1, le=1000),
    ) -> Any:
        """Lists jobs, the newest first."""
        found = await in_thread(lambda: jobs.list(status=status, kind=kind, limit=limit))
        return json_response([job.to_json() for job in found])

    @routes.get("/{job_id}", response_model=None, responses={200: {"model": JobBody}, **_ONE})
    async def show_job(job_id: str) -> Any:
        """Tells how a job is."""
        return json_response((await in_thread(lambda: jobs.get(job_id))).to_json())

    @routes.get(
        "/{job_id}/events",
        response_class=EventSourceResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **schemas.plain_failures(401, 403, 404, 422)},
    )
    async def job_events(found: Annotated[Job, Depends(existing)]) -> AsyncIterator[ServerSentEvent]:
        """Streams a job's state as it changes (SSE, each event a job), until it has ended."""
        async for job in jobs.changes(found.id):
            yield ServerSentEvent(raw_data=orjson.dumps(job.to_json()).decode(), event=job.status)

    @routes.post(
        "/{job_id}/cancel",
        response_model=None,
        responses={200: {"model": JobBody}, **schemas.failures(*schemas.GUARD, 404, 409, 422)},
    )
    async def cancel_job(job_id: str) -> Any:
        """Cancels a job; one that runs lets go within about a second."""
        return json_response((await in_thread(lambda: jobs.cancel(job_id))).to_json())

    return routes


_ONE = schemas.failures(401, 403, 404, 422)


async def answer(work: LifecycleJobs, job: Job, *, wait: bool) -> Response:
    """Returns a job, or with `wait` its result once it has ended; raises the error that it ended with."""
    if not wait:
        return json_response(job.to_json())
    async for state in work.service.changes(job.id):
        job = state
    if job.status == "succeeded":
        return json_response({**(job.result or {}), "job_id": job.id})
    if not job.finished:
        raise DrainingError(
            f"the service is stopping; job {job.id} goes on at its next start", details={"job_id": job.id}
        )
    details = {**(job.error_details or {}), "job_id": job.id}
    if job.status == "cancelled":
        raise ConflictError(f"job {job.id} was cancelled", details=details)
    raise error_named(job.error_type or "", job.error or f"job {job.id} failed", details)
