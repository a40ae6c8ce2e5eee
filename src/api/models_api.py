"""`/models`: sources, the version store, the registry, stages."""

from typing import Any

from fastapi import APIRouter, Query

from src.api import lifecycle_bodies as bodies
from src.api import schemas
from src.api.errors import json_response
from src.api.transfers_api import FAILURES, READ_FAILURES, add_transfer_routes
from src.core.lifecycle.overview import version_details
from src.core.lifecycle.transfers import commit_details
from src.core.lifecycle.work import LifecycleJobs
from src.core.model_manager import ModelManager
from src.core.registry.versions import RegisteredVersion
from src.core.threads import in_thread
from src.core.transition import SwapReport

_MAY_SWAP = {**FAILURES, **schemas.failures(507)}


def router(models: ModelManager, work: LifecycleJobs) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(prefix="/models", tags=["models"])
    add_transfer_routes(routes, work, "model", models.settings.max_upload_bytes)
    _add_store_routes(routes, models)
    _add_registration_routes(routes, models)
    _add_registry_routes(routes, models)
    return routes


def _add_store_routes(routes: APIRouter, models: ModelManager) -> None:
    @routes.get("/lakefs_repos", response_model=None, responses=READ_FAILURES)
    async def repos() -> Any:
        """Lists the repositories of the version store."""
        found = await in_thread(lambda: models.store.list_repos())
        return json_response(
            [{"name": r.name, "default_branch": r.default_branch, "created_at": r.created_at} for r in found]
        )

    @routes.get("/lakefs_repos/{repo}/commits", response_model=None, responses=READ_FAILURES)
    async def commits(repo: str, ref: str = Query("main"), limit: int = Query(100, ge=1, le=1000)) -> Any:
        """Lists commits, the newest first."""
        log = await in_thread(lambda: models.store.log(repo, ref, limit=limit))
        return json_response([commit_details(commit, with_files=False) for commit in log])

    @routes.get("/lakefs_repos/{repo}/commits/{commit_id}", response_model=None, responses=READ_FAILURES)
    async def commit(repo: str, commit_id: str) -> Any:
        """Tells what a commit holds, with the sha256 of every file."""
        return json_response(commit_details(await in_thread(lambda: models.store.get_commit(repo, commit_id))))

    @routes.get("/lakefs_repos/{repo}/diff", response_model=None, responses=READ_FAILURES)
    async def diff(repo: str, left: str = Query(description="branch or commit"), right: str = Query("main")) -> Any:
        """Tells what changed from one ref to another."""
        found = await in_thread(lambda: models.store.diff(repo, left, right))
        return json_response(
            {"left": left, "right": right, "added": found.added, "removed": found.removed, "changed": found.changed}
        )

    @routes.get("/lakefs_repos/{repo}/branches", response_model=None, responses=READ_FAILURES)
    async def branches(repo: str) -> Any:
        """Lists branches and the commits that they are at."""
        found = await in_thread(lambda: models.store.list_branches(repo))
        return json_response([{"name": name, "commit_id": commit_id or None} for name, commit_id in found.items()])

    @routes.post("/lakefs_repos/{repo}/branches", response_model=None, responses=FAILURES)
    async def create_branch(repo: str, body: bodies.Branch) -> Any:
        """Makes a branch."""
        commit_id = await in_thread(lambda: models.store.create_branch(repo, body.name, body.source))
        return json_response({"name": body.name, "commit_id": commit_id})

    @routes.delete("/lakefs_repos/{repo}/branches/{name}", response_model=None, responses=FAILURES)
    async def delete_branch(repo: str, name: str) -> Any:
        """Deletes a branch; its commits stay until the garbage is collected."""
        await in_thread(lambda: models.store.delete_branch(repo, name))
        return json_response({"message": f"branch '{name}' of '{repo}' is deleted"})

    @routes.post("/lakefs_repos/{repo}/merge", response_model=None, responses=FAILURES)
    async def merge(repo: str, body: bodies.Merge) -> Any:
        """Merges one ref into a branch; a conflict is a 409 whose details name the paths."""
        commit = await in_thread(lambda: models.store.merge(repo, body.source, body.into, message=body.message))
        return json_response({**commit_details(commit, with_files=False), "branch": body.into})

    @routes.post("/collect_garbage", response_model=None, responses=FAILURES)
    async def collect_garbage(older_than: float = Query(86400.0, ge=0, description="seconds")) -> Any:
        """Removes from the store what no branch and no registered version reaches."""
        garbage = await in_thread(lambda: models.collect_garbage(older_than=older_than))
        return json_response({"removed": garbage.removed, "bytes_freed": garbage.bytes_freed})


def _add_registration_routes(routes: APIRouter, models: ModelManager) -> None:
    @routes.post("/register_from_lakefs", response_model=None, responses=_MAY_SWAP)
    async def register_from_lakefs(body: bodies.RegisterFromLakefs) -> Any:
        """Registers a commit that holds a model which the task and the engine can load."""
        version = await in_thread(
            lambda: models.register_from_lakefs(
                body.registered_name,
                body.task,
                body.lakefs_repo,
                body.commit_id,
                engine=body.engine,
                **_said(body),
            )
        )
        return json_response(_registered(version))

    @routes.post("/register_ollama", response_model=None, responses=_MAY_SWAP)
    async def register_ollama(body: bodies.RegisterOllama) -> Any:
        """Registers a model that Ollama has, under any name."""
        version = await in_thread(
            lambda: models.register_ollama(body.local_model_name, body.task, name=body.registered_name, **_said(body))
        )
        return json_response(_registered(version))

    @routes.post("/transition_stage", response_model=None, responses=_MAY_SWAP)
    async def transition_stage(body: bodies.Transition) -> Any:
        """Moves a version to a stage; a loaded model is swapped without a failing request."""
        version, swap = await in_thread(
            lambda: models.transition_stage(
                body.model_name,
                body.version,
                body.stage,
                archive_existing_versions=body.archive_existing_versions,
                allow_downtime=body.allow_downtime,
            )
        )
        now = await in_thread(lambda: models.registered_model(version.name, all_versions=True))
        return json_response(_moved(version, swap, now["serving"]))


def _add_registry_routes(routes: APIRouter, models: ModelManager) -> None:
    @routes.get("/registered_in_mlflow", response_model=None, responses=READ_FAILURES)
    async def registered(show_all: bool = Query(False, description="archived ones and those of others too")) -> Any:
        """Lists the registered models."""
        return json_response(await in_thread(lambda: models.registered(show_all=show_all)))

    @routes.get("/registered_in_mlflow/{model_name:path}", response_model=None, responses=READ_FAILURES)
    async def registered_model(
        model_name: str, all_version: bool = Query(False, description="every version, not only the serving one")
    ) -> Any:
        """Tells about the version that serves a name, or about all of its versions."""
        return json_response(await in_thread(lambda: models.registered_model(model_name, all_versions=all_version)))

    @routes.delete("/registered_in_mlflow/{model_name:path}/{version}", response_model=None, responses=FAILURES)
    async def delete_version(
        model_name: str, version: str, force: bool = Query(False, description="also one that serves")
    ) -> Any:
        """Deletes a registered version; its files stay in the version store."""
        await in_thread(lambda: models.delete_version(model_name, version, force=force))
        return json_response({"message": f"version {version} of '{model_name}' is deleted"})

    @routes.get("/stats", response_model=None, responses=READ_FAILURES)
    async def stats(show_all: bool = Query(False, description="archived ones and those of others too")) -> Any:
        """Tells how versions spread over stages, tasks and engines, and what is stored."""
        return json_response(await in_thread(lambda: models.get_stats(show_all=show_all)))

    @routes.get("/health", response_model=None, responses=READ_FAILURES)
    async def health() -> Any:
        """Asks MLflow, the version store and Ollama whether they answer; 200 also when degraded."""
        return json_response(await in_thread(models.health_check))


def _said(body: bodies.RegisterFromLakefs | bodies.RegisterOllama) -> dict[str, Any]:
    return {
        "model_params": body.model_params,
        "description": body.version_description,
        "stage": body.stage,
        "set_priority_to_one": body.set_priority_to_one,
    }


def _registered(version: dict[str, Any]) -> dict[str, Any]:
    return {
        "message": f"'{version['name']}' is registered as version {version['version']} (stage {version['stage']})",
        "result": version,
    }


def _moved(version: RegisteredVersion, swap: SwapReport, now: dict[str, str]) -> dict[str, Any]:
    serves = ", ".join(f"{alias}: version {number}" for alias, number in sorted(now.items())) or "no alias is set"
    return {
        "message": f"Version {version.version} of '{version.name}' is now in stage {version.stage} ({serves})",
        "result": version_details(version),
        "serving": now,
        "swap": {"loaded": swap.loaded, "downtime_seconds": round(swap.downtime_seconds, 3)},
    }
