"""LifecycleJobs: the lifecycle's long work as durable jobs. Only the service launches them."""

from collections.abc import Sequence
from typing import Any

from src.core.jobs import Job, JobCancelled, JobContext, JobService
from src.core.lifecycle.transfers import SOURCES, Kind, Transfers, check_source
from src.core.model_manager import ModelManager
from src.core.sources.staging import local_name

JsonObject = dict[str, Any]


class LifecycleJobs:
    """Submits jobs, and carries them out. What a job does is idempotent: run again, it goes on where it was."""

    def __init__(self, models: ModelManager) -> None:
        self._models = models
        settings = models.settings
        self.service = JobService(
            settings.data_dir,
            {"download": self._download, "upload_to_lakefs": self._upload, "checkout": self._checkout},
            concurrency=settings.jobs.concurrency,
            keep_days=settings.jobs.keep_days,
        )

    def start(self) -> None:
        """Takes up what was not finished, and removes what uploads have left that ended with their service."""
        self.service.start()
        for kind in SOURCES:
            self.transfers(kind).uploads().clear_leftovers()

    def transfers(self, kind: Kind) -> Transfers:
        """Returns what moves the files of models, or of datasets."""
        return self._models.models if kind == "model" else self._models.datasets

    # ------------------------------------------------------------------ submitting

    def download(self, kind: Kind, entry: JsonObject) -> Job:
        """Submits a download; an unfinished one of the same is returned instead."""
        return self.service.submit("download", self._download_request(kind, entry))

    def batch_download(self, kind: Kind, entries: Sequence[JsonObject]) -> Job:
        """Submits several downloads under one parent, or none where one of them cannot be."""
        requests = [("download", self._download_request(kind, entry)) for entry in entries]
        return self.service.submit_batch("batch_download", requests)

    def upload(self, kind: Kind, *, repo_name: str, local_model_name: str, branch: str, message: str) -> Job:
        """Submits an upload to the version store; it waits for a download of the same that is under way."""
        name = local_name(local_model_name)
        arriving = self.service.unfinished("download", lambda job: _arrives_as(job, kind, name))
        if not arriving:
            self.transfers(kind).staging.get(name)  # or say at once that there is none
        request = {"kind": kind, "repo_name": repo_name, "name": name, "branch": branch, "message": message}
        return self.service.submit("upload_to_lakefs", request, after=[job.id for job in arriving])

    def checkout(self, kind: Kind, repo: str, ref: str) -> Job:
        """Submits a checkout of a commit below the data folder."""
        commit = self._models.store.get_commit(repo, ref)
        return self.service.submit("checkout", {"kind": kind, "repo_name": repo, "commit_id": commit.id})

    def _download_request(self, kind: Kind, entry: JsonObject) -> JsonObject:
        check_source(entry["model_source"], kind)
        if entry["model_source"] == "huggingface":
            local_name(entry["model_name"])
        given = {key: entry.get(key) for key in ("revision", "allow_patterns") if entry.get(key)}
        return {"kind": kind, "model_source": entry["model_source"], "model_name": entry["model_name"], **given}

    # ------------------------------------------------------------------ carrying out

    def _download(self, job: JobContext, request: JsonObject) -> JsonObject:
        transfers = self.transfers(request["kind"])
        source, name = request["model_source"], request["model_name"]
        try:
            return transfers.download(
                source,
                name,
                revision=request.get("revision"),
                allow_patterns=request.get("allow_patterns"),
                progress=job.progress,
            )
        except JobCancelled:
            transfers.discard(source, name)
            raise

    def _upload(self, job: JobContext, request: JsonObject) -> JsonObject:
        return self.transfers(request["kind"]).upload_to_store(
            request["repo_name"],
            request["name"],
            branch=request["branch"],
            message=request["message"],
            progress=job.progress,
        )

    def _checkout(self, job: JobContext, request: JsonObject) -> JsonObject:
        transfers = self.transfers(request["kind"])
        commit, path = transfers.checkout(request["repo_name"], request["commit_id"], job.progress)
        return {"repo_name": commit.repo, "commit_id": commit.id, "digest": commit.digest, "path": str(path)}


def _arrives_as(job: Job, kind: Kind, name: str) -> bool:
    request = job.request
    return bool(
        request["kind"] == kind
        and request["model_source"] == "huggingface"
        and local_name(request["model_name"]) == name
    )
