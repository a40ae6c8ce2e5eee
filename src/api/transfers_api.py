"""The verbs that `/models` and `/datasets` share: download, local, upload, upload_to_lakefs."""

import shutil
import sys
from typing import Any

from fastapi import APIRouter, Query, Request

from src.api import lifecycle_bodies as bodies
from src.api import schemas
from src.api.errors import json_response
from src.api.jobs_api import answer
from src.api.uploads import receive
from src.core.lifecycle.transfers import Kind
from src.core.lifecycle.work import LifecycleJobs
from src.core.threads import in_thread

FAILURES = schemas.failures(*schemas.GUARD, 400, 404, 409, 422, 500, 503)
READ_FAILURES = schemas.failures(400, 401, 403, 404, 422, 500, 503)


def _job_or_result(failures: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": bodies.JobBody | dict[str, Any], "description": "a job; with `wait` its result"}, **failures}


def add_transfer_routes(routes: APIRouter, work: LifecycleJobs, kind: Kind, max_bytes: int) -> None:
    """Adds the verbs to the routes of models, or of datasets."""

    @routes.post("/download", response_model=None, responses=_job_or_result(FAILURES))
    async def download(body: bodies.Download, wait: bool = Query(False, description="answer when it has ended")) -> Any:
        """Downloads from Hugging Face into the staging area, or has Ollama pull: a job."""
        job = await in_thread(lambda: work.download(kind, body.model_dump()))
        return await answer(work, job, wait=wait)

    @routes.post("/batch_download", response_model=None, responses={200: {"model": bodies.JobBody}, **FAILURES})
    async def batch_download(body: bodies.BatchDownload) -> Any:
        """Downloads several: one job for each entry, under one parent that tells how each went."""
        entries = [entry.model_dump() for entry in body.downloads]
        return json_response((await in_thread(lambda: work.batch_download(kind, entries))).to_json())

    @routes.get("/local", response_model=None, responses=READ_FAILURES)
    async def local(model_source: str = Query("huggingface", description="huggingface: what is staged; ollama")) -> Any:
        """Lists what is staged here, or what Ollama has."""
        transfers = work.transfers(kind)
        return json_response(await in_thread(lambda: transfers.local(model_source)))

    # `receive` bounds the body, by a setting of its own.
    @routes.post(
        "/upload", response_model=None, openapi_extra=_MULTIPART, responses=FAILURES, max_body_size=sys.maxsize
    )
    async def upload(request: Request) -> Any:
        """Takes in files of your own (or one archive of them) under the name in the field `name`."""
        transfers = work.transfers(kind)
        folder = transfers.uploads().new_folder()
        try:
            received = await receive(request, folder, max_bytes=max_bytes)
            return json_response(await in_thread(lambda: transfers.accept(folder, received.name)))
        finally:
            await in_thread(lambda: shutil.rmtree(folder, ignore_errors=True))

    @routes.post("/upload_to_lakefs", response_model=None, responses=FAILURES)
    async def upload_to_lakefs(
        body: bodies.UploadToStore, wait: bool = Query(True, description="false: answer with the job")
    ) -> Any:
        """Commits what is staged to the version store; the answer has `commit_id`."""
        job = await in_thread(lambda: work.upload(kind, **body.model_dump()))
        return await answer(work, job, wait=wait)

    @routes.delete("/local/{name}", response_model=None, responses=FAILURES)
    async def remove_local(name: str) -> Any:
        """Removes what is staged under a name; commits of it stay."""
        await in_thread(lambda: work.transfers(kind).staging.remove(name))
        return json_response({"message": f"'{name}' is no longer staged"})


_MULTIPART: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "name": {"type": "string", "description": "what to call it here"},
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}

__all__ = ["FAILURES", "READ_FAILURES", "add_transfer_routes"]
