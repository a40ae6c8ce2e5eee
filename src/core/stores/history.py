"""The commit graph: where two commits meet, and the tree that joins them."""

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from src.core.errors import ConflictError
from src.core.stores.base import Commit, Diff, FileEntry
from src.core.stores.names import listed

Load = Callable[[str], Commit]
"""Returns the commit of a full id."""


def first_parents(start: str, load: Load, limit: int) -> list[Commit]:
    """Returns commits from `start` backwards along first parents, newest first."""
    commits: list[Commit] = []
    following: tuple[str, ...] = (start,)
    while following and len(commits) < limit:
        commits.append(load(following[0]))
        following = commits[-1].parents
    return commits


def ancestors(start: str, load: Load) -> dict[str, Commit]:
    """Returns a commit and everything it descends from, by id."""
    found: dict[str, Commit] = {}
    waiting = [start]
    while waiting:
        commit_id = waiting.pop()
        if commit_id not in found:
            found[commit_id] = load(commit_id)
            waiting.extend(found[commit_id].parents)
    return found


def merge_base(left: str, right: str, load: Load) -> Commit | None:
    """Returns the last commit that both descend from; None where they share no history.

    Where crossing merges leave several, it is the newest of them.
    """
    others = ancestors(right, load)
    shared = {commit_id: commit for commit_id, commit in ancestors(left, load).items() if commit_id in others}
    inner = {parent for commit in shared.values() for parent in commit.parents}
    last = [commit for commit_id, commit in shared.items() if commit_id not in inner]
    return max(last, key=lambda commit: (commit.created_at, commit.id), default=None)


def compare(left: Iterable[FileEntry], right: Iterable[FileEntry]) -> Diff:
    """Returns what changed from one tree to the other."""
    old, new = _by_path(left), _by_path(right)
    return Diff(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(path for path in old.keys() & new.keys() if old[path] != new[path])),
    )


def merge_trees(base: Iterable[FileEntry], ours: Iterable[FileEntry], theirs: Iterable[FileEntry]) -> list[FileEntry]:
    """Joins two trees file by file: whoever differs from `base` wins.

    Raises `ConflictError` naming paths that both changed, or that are below a file of the other side.
    """
    old, mine, other = _by_path(base), _by_path(ours), _by_path(theirs)
    merged: list[FileEntry] = []
    conflicts: list[str] = []
    for path in sorted(old.keys() | mine.keys() | other.keys()):
        before, left, right = old.get(path), mine.get(path), other.get(path)
        if left != right and before not in (left, right):
            conflicts.append(path)
        elif winner := right if left == before else left:
            merged.append(winner)
    conflicts += _below_files({entry.path for entry in merged})
    if conflicts:
        raise ConflictError(f"both sides changed {listed(conflicts)}", details={"paths": sorted(conflicts)})
    return merged


def _below_files(paths: set[str]) -> list[str]:
    return [path for path in paths if any(str(parent) in paths for parent in PurePosixPath(path).parents)]


def _by_path(files: Iterable[FileEntry]) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in files}
