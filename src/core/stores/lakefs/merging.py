"""Merges one ref into a branch on lakeFS, and finds the paths of a conflict, which lakeFS does not tell."""

from src.core.errors import ConflictError, InvalidInputError
from src.core.stores.base import Commit
from src.core.stores.lakefs.contents import below_files
from src.core.stores.lakefs.server import Server
from src.core.stores.lakefs.trees import Trees
from src.core.stores.names import listed


def join(server: Server, trees: Trees, theirs: Commit, into: str, message: str) -> Commit:
    """Brings what `theirs` changed into a branch; the caller has its turn there.

    Raises `ConflictError` with `details["paths"]`, and `InvalidInputError` with nothing to merge.
    """
    repo = theirs.repo
    ours = trees.commit(repo, server.branch(repo, into))
    theirs_changed = server.changed_since_base(repo, ours.id, theirs.id)
    ours_changed = server.changed_since_base(repo, theirs.id, ours.id)
    if conflicts := _conflicts(ours, theirs, ours_changed, theirs_changed):
        raise _conflict(conflicts)
    merged = server.merge(repo, theirs.id, into, message)
    if merged.outcome == "conflict":  # lakeFS tells apart what looks the same here, such as content types
        raise _conflict(sorted(ours_changed & theirs_changed))
    if merged.outcome == "nothing":
        raise InvalidInputError(f"{into!r} already has every change of {theirs.id[:12]}: there is nothing to merge")
    return trees.commit(repo, merged.commit_id)


def _conflicts(ours: Commit, theirs: Commit, ours_changed: set[str], theirs_changed: set[str]) -> list[str]:
    """Returns the paths that both changed, or that the merge would put below a file."""
    mine = {entry.path: entry for entry in ours.files}
    other = {entry.path: entry for entry in theirs.files}
    both = [path for path in ours_changed & theirs_changed if mine.get(path) != other.get(path)]
    merged = (mine.keys() - theirs_changed) | (other.keys() & theirs_changed)
    return sorted(both + below_files(merged))


def _conflict(paths: list[str]) -> ConflictError:
    return ConflictError(f"both sides changed {listed(paths)}", details={"paths": paths})
