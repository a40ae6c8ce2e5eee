"""`aiml datasets`: from a source into the version store, and back out of it."""

from typing import Annotated, Any

import typer

from src.cli.jobs import started
from src.cli.output import commit_text, print_table, print_text
from src.cli.session import Session, command
from src.cli.transfers import NoWait, add_transfer_commands
from src.cli.watching import watch

JsonObject = dict[str, Any]

group = typer.Typer(no_args_is_help=True, help="Data sets, from a source into the version store and back out.")

add_transfer_commands(group, "/datasets")


@command(group, "list")
def list_datasets(session: Session) -> None:
    """List the commits whose files are in place."""
    session.show(session.connection.get("/datasets/checked_out"), _print_checked_out)


@command(group, "checkout")
def checkout(
    session: Session,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A repository of the version store.")],
    ref: Annotated[str, typer.Argument(metavar="REF", help="A commit, its beginning, or a branch.")] = "main",
    no_wait: NoWait = False,
) -> None:
    """Put a commit's files, verified, below the service's data folder; prints where they are."""
    job = session.connection.post("/datasets/checkout", {"repo_name": repo, "commit_id": ref}, wait=False)
    if no_wait:
        session.show(job, started)
    else:
        done = watch(session, job, f"{repo} @ {ref}")
        session.show(done["result"], lambda result: print_text(result["path"]))


def _print_checked_out(entries: list[JsonObject]) -> None:
    rows = ((commit_text(entry["commit_id"]), entry["path"]) for entry in entries)
    print_table(("Commit", "Folder"), rows, nothing="Nothing is checked out: see `checkout`.")
