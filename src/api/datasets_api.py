"""`/datasets`: data sets take the same way as models, from a source into the version store and back out."""

from typing import Any

from fastapi import APIRouter, Query

from src.api import lifecycle_bodies as bodies
from src.api.errors import json_response
from src.api.jobs_api import answer
from src.api.transfers_api import FAILURES, READ_FAILURES, add_transfer_routes
from src.core.lifecycle.work import LifecycleJobs
from src.core.threads import in_thread


def router(work: LifecycleJobs, max_bytes: int) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(prefix="/datasets", tags=["datasets"])
    add_transfer_routes(routes, work, "dataset", max_bytes)

    @routes.post("/checkout", response_model=None, responses=FAILURES)
    async def checkout(
        body: bodies.Checkout, wait: bool = Query(True, description="false: answer with the job")
    ) -> Any:
        """Puts the files of a commit, each verified by its sha256, below the data folder; answers with the path."""
        job = await in_thread(lambda: work.checkout("dataset", body.repo_name, body.commit_id))
        return await answer(work, job, wait=wait)

    @routes.get("/checked_out", response_model=None, responses=READ_FAILURES)
    async def checked_out() -> Any:
        """Lists the commits whose files are in place."""
        return json_response(await in_thread(lambda: work.transfers("dataset").checked_out()))

    return routes
