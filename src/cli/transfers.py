"""The commands that models and datasets share: download, upload, commit, local, discard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from src.cli.failures import CommandError
from src.cli.jobs import started
from src.cli.output import print_table, print_text, say
from src.cli.session import INTERRUPTED, Session, command
from src.cli.watching import upload_bar, watch

JsonObject = dict[str, Any]

_ARCHIVES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip")

Source = Annotated[str, typer.Option("--source", help="huggingface, or ollama for models.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Leave it to the service and print the job.")]
Repo = Annotated[str, typer.Option("--repo", help="The repository of the version store; made where it is missing.")]
Branch = Annotated[str, typer.Option("--branch", help="The branch of the repository.")]
Message = Annotated[str, typer.Option("--message", "-m", help="What the commit says.")]


def add_transfer_commands(group: typer.Typer, prefix: str) -> None:
    """Adds the commands to those of `/models` or `/datasets`."""
    _add_download(group, prefix)
    _add_upload(group, prefix)
    _add_commit(group, prefix)
    _add_local(group, prefix)


def _add_download(group: typer.Typer, prefix: str) -> None:
    @command(group, "download")
    def download(
        session: Session,
        names: Annotated[list[str], typer.Argument(metavar="NAME…", help="As its source calls it: google/gemma-2b.")],
        source: Source = "huggingface",
        revision: Annotated[str | None, typer.Option(help="Branch, tag or commit at the source.")] = None,
        allow: Annotated[
            list[str] | None, typer.Option("--allow", help="Only files that match this glob; may be repeated.")
        ] = None,
        no_wait: NoWait = False,
    ) -> None:
        """Download from Hugging Face into the staging area, or have Ollama pull."""
        entries = [
            {"model_source": source, "model_name": name, "revision": revision, "allow_patterns": allow or None}
            for name in names
        ]
        if len(entries) == 1:
            job = session.connection.post(f"{prefix}/download", entries[0])
        else:
            job = session.connection.post(f"{prefix}/batch_download", {"downloads": entries})
        if no_wait:
            session.show(job, started)
            return
        done = watch(session, job, ", ".join(names))
        _check_all(done)
        session.show(done, lambda job: print_text("\n".join(map(_arrived, _results(job)))))


def _check_all(job: JsonObject) -> None:
    """Raises `CommandError` with the reasons where some of a parent's jobs did not succeed."""
    missing = [entry for entry in _entries(job) if entry["status"] != "succeeded"]
    if missing:
        for result in _results(job):
            say(_arrived(result))
        reasons = "; ".join(str(entry.get("error") or f"job {entry['id']}: {entry['status']}") for entry in missing)
        raise CommandError(f"{len(missing)} of {len(_entries(job))} did not succeed: {reasons}", answer=job)


def _results(job: JsonObject) -> list[JsonObject]:
    entries = _entries(job)
    return [entry["result"] for entry in entries if entry["status"] == "succeeded"] if entries else [job["result"]]


def _entries(job: JsonObject) -> list[JsonObject]:
    """Returns how each of a parent's jobs went; nothing for a job that is none."""
    return job["result"].get("jobs", []) if job.get("children") else []


def _add_upload(group: typer.Typer, prefix: str) -> None:
    @command(group, "upload")
    def upload(
        session: Session,
        path: Annotated[Path, typer.Argument(help="A file, a folder, or a zip or tar of one.")],
        name: Annotated[str | None, typer.Option(help="What to call it here; default: the path's own name.")] = None,
        to_lakefs: Annotated[
            str | None, typer.Option("--to-lakefs", metavar="REPO", help="Then commit it to this repository.")
        ] = None,
        branch: Branch = "main",
        message: Message = "",
    ) -> None:
        """Upload files of your own into the staging area, and commit them where that is asked for."""
        arrived = _send(session, prefix, path, name or _name_of(path))
        if to_lakefs is None:
            session.show(arrived, lambda answer: print_text(_arrived(answer)))
            return
        say(_arrived(arrived))
        _commit(session, prefix, arrived["name"], to_lakefs, branch, message)


def _add_commit(group: typer.Typer, prefix: str) -> None:
    @command(group, "commit")
    def commit(
        session: Session,
        name: Annotated[str, typer.Argument(help="What is staged, as `local` lists it.")],
        repo: Repo,
        branch: Branch = "main",
        message: Message = "",
        no_wait: NoWait = False,
    ) -> None:
        """Commit what is staged to the version store; prints the commit id."""
        _commit(session, prefix, name, repo, branch, message, no_wait=no_wait)


def _add_local(group: typer.Typer, prefix: str) -> None:
    @command(group, "local")
    def local(session: Session, source: Source = "huggingface") -> None:
        """List what is staged, or what Ollama has."""
        session.show(session.connection.get(f"{prefix}/local", model_source=source), _print_local)

    @command(group, "discard")
    def discard(session: Session, name: Annotated[str, typer.Argument(help="What is staged.")]) -> None:
        """Remove what is staged; commits of it stay."""
        answer = session.connection.delete(f"{prefix}/local/{quote(name, safe='')}")
        session.show(answer, lambda said: print_text(said["message"]))


def _send(session: Session, prefix: str, path: Path, name: str) -> JsonObject:
    from src.cli.multipart import MultipartBody, local_files

    if not path.exists():
        raise CommandError(f"{path} does not exist. What is staged already is committed with `commit`, not uploaded")
    files = local_files(path)
    body = MultipartBody({"name": name}, files)
    try:
        with upload_bar(name, sum(file.size for file in files)) as sent:
            body.sent = sent
            answer: JsonObject = session.connection.send(
                f"{prefix}/upload", body, content_type=body.content_type, length=body.length
            )
    except KeyboardInterrupt:
        say("The upload was broken off; the service keeps nothing of an incomplete one.")
        raise typer.Exit(INTERRUPTED) from None
    return answer


def _commit(
    session: Session, prefix: str, name: str, repo: str, branch: str, message: str, *, no_wait: bool = False
) -> None:
    body = {"repo_name": repo, "local_model_name": name, "branch": branch, "message": message}
    job = session.connection.post(f"{prefix}/upload_to_lakefs", body, wait=False)
    if no_wait:
        session.show(job, started)
    else:
        done = watch(session, job, f"{name} → {repo}")
        session.show(done["result"], lambda result: print_text(result["commit_id"]))


def _name_of(path: Path) -> str:
    """Returns what to call an upload: the name of the folder, or of the file without its ending."""
    name = path.resolve().name if path.is_dir() else path.name
    if path.is_dir():
        return name
    ending = next((ending for ending in _ARCHIVES if name.lower().endswith(ending)), path.suffix)
    return name[: len(name) - len(ending)] or name


def _arrived(result: JsonObject) -> str:
    return f"'{result['name']}' has arrived ({result['size']})"


def _print_local(entries: Sequence[JsonObject]) -> None:
    rows = ((entry["name"], entry["size"], entry["modified"], _kind(entry)) for entry in entries)
    print_table(("Name", "Size", "Modified", "Kind"), rows, nothing="Nothing is here yet: see `download` and `upload`.")


def _kind(entry: JsonObject) -> str:
    """Returns what a model is, as far as its source says."""
    facts = (entry.get(name) for name in ("architecture", "family", "parameters", "quantization", "task"))
    return " ".join(str(fact) for fact in facts if fact)
