"""`aiml models`: from a source to a served version."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from src.cli.failures import CommandError
from src.cli.output import commit_text, print_table, print_text, size_text, time_text
from src.cli.overview import print_health, print_stats
from src.cli.session import Session, command
from src.cli.transfers import Branch, add_transfer_commands

JsonObject = dict[str, Any]
Stage = Literal["production", "staging", "archived", "none"]

group = typer.Typer(no_args_is_help=True, help="From a source to a served version.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The registered name.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="The version's number.")]
ShowAll = Annotated[bool, typer.Option("--all", help="Archived ones, and those that others registered, too.")]

add_transfer_commands(group, "/models")


@command(group, "repos")
def repos(session: Session) -> None:
    """List the repositories of the version store."""
    found = session.connection.get("/models/lakefs_repos")
    session.show(found, lambda entries: print_table(("Repository", "Created"), map(_repo_row, entries)))


@command(group, "log")
def log(
    session: Session,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A repository of the version store.")],
    ref: Annotated[str, typer.Option(help="A branch or a commit.")] = "main",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many commits at most.")] = 20,
) -> None:
    """List a repository's commits, the newest first."""
    path = f"/models/lakefs_repos/{quote(repo, safe='')}/commits"
    commits = session.connection.get(path, ref=ref, limit=limit)
    session.show(commits, lambda found: print_table(("Commit", "Created", "Size", "Message"), map(_commit_row, found)))


@command(group, "register")
def register(
    session: Session,
    name: Name,
    task: Annotated[str, typer.Option(help="What it does: text-generation …")],
    repo: Annotated[str | None, typer.Option(help="The repository of the version store with its files.")] = None,
    commit: Annotated[str | None, typer.Option(help="The commit; default: the branch's newest.")] = None,
    branch: Branch = "main",
    ollama: Annotated[str | None, typer.Option(metavar="MODEL", help="Its name in Ollama, in place of --repo.")] = None,
    engine: Annotated[str | None, typer.Option(help="Default: the one that can load it.")] = None,
    params: Annotated[float | None, typer.Option(help="Parameters in billions; default: counted.")] = None,
    description: Annotated[str, typer.Option(help="What this version is.")] = "",
    stage: Annotated[Stage | None, typer.Option(help="The stage to put it in.")] = None,
    priority: Annotated[
        bool, typer.Option("--priority", help="First in line when the serving version leaves.")
    ] = False,
) -> None:
    """Register a commit, or a model of Ollama's, as the next version of a name."""
    if (repo is None) == (ollama is None):
        raise typer.BadParameter("give --repo (and --commit) for files of the version store, or --ollama MODEL")
    about = {
        "registered_name": name,
        "task": task,
        "model_params": params,
        "version_description": description,
        "stage": stage,
        "set_priority_to_one": priority,
    }
    if ollama is not None:
        if engine not in (None, "ollama") or commit is not None:
            raise typer.BadParameter("--engine and --commit are for files of the version store, not for --ollama")
        answer = session.connection.post("/models/register_ollama", {**about, "local_model_name": ollama})
    else:
        commit = commit or _newest_commit(session, str(repo), branch)
        files = {"lakefs_repo": repo, "commit_id": commit, "engine": engine}
        answer = session.connection.post("/models/register_from_lakefs", {**about, **files}, patient=True)
    session.show(answer, lambda said: print_text(said["message"]))


@command(group, "list")
def list_models(session: Session, show_all: ShowAll = False) -> None:
    """List the registered models and what serves."""
    models = session.connection.get("/models/registered_in_mlflow", show_all=show_all)
    columns = ("Name", "Serving", "Newest", "Task", "Engine")
    session.show(
        models,
        lambda found: print_table(columns, map(_model_row, found), nothing="Nothing is registered: see `register`."),
    )


@command(group, "show")
def show_model(session: Session, name: Name) -> None:
    """Tell about every version of a model."""
    model = session.connection.get(registered_path(name), all_version=True)
    columns = ("Version", "Stage", "Serves", "Task", "Engine", "Source", "Created", "Description")
    session.show(model, lambda found: print_table(columns, map(_version_row, found["versions"])))


@command(group, "stage")
def stage_model(
    session: Session,
    name: Name,
    version: Version,
    stage: Annotated[Stage, typer.Argument(metavar="STAGE", help="production, staging, archived or none.")],
    archive_existing: Annotated[
        bool, typer.Option("--archive-existing", help="Archive the versions that are in that stage now.")
    ] = False,
    allow_downtime: Annotated[
        bool, typer.Option("--allow-downtime", help="Unload the old version first where both do not fit.")
    ] = False,
) -> None:
    """Move a version to a stage; a loaded model is swapped without a failing request."""
    body = {
        "model_name": name,
        "version": version,
        "stage": stage,
        "archive_existing_versions": archive_existing,
        "allow_downtime": allow_downtime,
    }
    answer = session.connection.post("/models/transition_stage", body, patient=True)
    session.show(answer, lambda said: print_text(said["message"]))


@command(group, "delete")
def delete(
    session: Session,
    name: Name,
    version: Version,
    force: Annotated[bool, typer.Option("--force", help="Also one that serves.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
) -> None:
    """Delete a registered version; its files stay in the version store."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete version {version} of '{name}' from the registry?", abort=True, err=True)
    answer = session.connection.delete(f"{registered_path(name)}/{quote(version, safe='')}", force=force)
    session.show(answer, lambda said: print_text(said["message"]))


@command(group, "stats")
def stats(session: Session, show_all: ShowAll = False) -> None:
    """Tell how versions spread over stages, tasks and engines, and what is stored."""
    session.show(session.connection.get("/models/stats", show_all=show_all), print_stats)


@command(group, "health")
def health(session: Session) -> None:
    """Ask whether MLflow, the version store and Ollama answer."""
    session.show(session.connection.get("/models/health"), print_health)


def registered_path(name: str) -> str:
    """Returns the route of a registered model, whose name may hold `:` and `/`."""
    return f"/models/registered_in_mlflow/{quote(name, safe='/:@')}"


def _newest_commit(session: Session, repo: str, branch: str) -> str:
    commits = session.connection.get(f"/models/lakefs_repos/{quote(repo, safe='')}/commits", ref=branch, limit=1)
    if not commits:
        raise CommandError(f"Branch '{branch}' of '{repo}' holds no commit: upload a model to it first")
    return str(commits[0]["commit_id"])


def _repo_row(repo: JsonObject) -> Sequence[Any]:
    return repo["name"], time_text(repo.get("created_at"))


def _commit_row(commit: JsonObject) -> Sequence[Any]:
    size = size_text(commit.get("size_bytes"))
    return commit_text(commit["commit_id"]), time_text(commit.get("created_at")), size, commit.get("message")


def _model_row(model: JsonObject) -> Sequence[Any]:
    serving = ", ".join(f"{alias}: {version}" for alias, version in sorted(model.get("serving", {}).items()))
    newest = max((int(version["version"]) for version in model.get("versions", [])), default=None)
    return model["name"], serving, newest, model.get("task"), model.get("engine")


def _version_row(version: JsonObject) -> Sequence[Any]:
    return (
        version["version"],
        version["stage"],
        ", ".join(version.get("aliases", [])),
        version.get("task"),
        version.get("engine"),
        version.get("source"),
        time_text(version.get("created_at")),
        version.get("description"),
    )
