"""Removes commits that nothing reaches, and blobs that no commit names.

Everything is a root that a branch points to, that the caller keeps, or that is too young to judge;
a root keeps all its ancestors, and a commit its blobs, whichever repository it is in.

Against writers there is one lock file, `store.lock`. Whoever sets a ref or stores a commit shares it for
that moment, with the repository's own lock inside; a collection owns it from its first look to the last name removed.
So a ref never gains a commit that is being collected. The long part of an upload, reading and writing bytes,
needs no lock: once inside, the upload looks whether each blob that it is about to name is still there, and takes
in again, without letting go, what a collection has removed meanwhile. Neither side waits for gigabytes.

Order makes it safe to be killed: nothing is removed before every repository has been read and checked;
then go commits, children before their parents; then, these removals being on disk, blobs. What is removed is
moved to `tmp/` (quick, under the lock) and only then deleted (slow), and `tmp/` is swept anyway.
Checkouts are not hurt: a hard link or a reflink keeps the bytes.
"""

import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

from src.core.errors import IntegrityError
from src.core.stores.base import Garbage
from src.core.stores.blobs import Blobs
from src.core.stores.disk import unique_name
from src.core.stores.repo_folder import RepoFolder


@dataclass
class Trash:
    """Files on their way out: moved aside first, deleted once nobody waits."""

    folder: Path
    moved: list[Path] = field(default_factory=list)
    bytes_freed: int = 0

    def take(self, path: Path) -> None:
        """Moves a file aside. One that has another name elsewhere (a checkout's) frees no bytes."""
        status = path.stat()
        aside = self.folder / unique_name()
        os.rename(path, aside)
        self.moved.append(aside)
        self.bytes_freed += status.st_size if status.st_nlink == 1 else 0

    def empty(self) -> Garbage:
        """Deletes what was moved aside; returns what it was."""
        for path in self.moved:
            path.unlink(missing_ok=True)  # `tmp/` may have been swept meanwhile
        return Garbage(len(self.moved), self.bytes_freed)


def collect(
    folders: Mapping[str, RepoFolder], blobs: Blobs, trash: Trash, keep: Iterable[tuple[str, str]], older_than: float
) -> None:
    """Moves what nothing reaches, and what is older than `older_than` seconds, to the trash.

    The caller owns `store.lock`. Raises `IntegrityError`, having removed nothing, where a repository is damaged.
    """
    before = time.time() - older_than
    kept = list(keep)
    named: set[str] = set()
    living = {
        name: _living(folder, tuple(commit for repo, commit in kept if repo == name), before, named)
        for name, folder in folders.items()
    }
    for name, folder in folders.items():
        for path in _dead(folder, living[name]):
            trash.take(path)
        folder.sync_commits()
    for path in blobs.stored():
        if path.name not in named and path.stat().st_mtime <= before:
            trash.take(path)


def _living(folder: RepoFolder, keep: tuple[str, ...], before: float, named: set[str]) -> set[str]:
    """Returns the id of every commit that stays, and adds what their files are named by to `named`."""
    folder.load()
    stored = folder.stored()
    waiting = [head for head in folder.branches().values() if head]
    waiting += [commit_id for commit_id in stored if commit_id.startswith(keep)]  # a shortened id keeps, too
    waiting += [commit_id for commit_id, path in stored.items() if path.stat().st_mtime > before]
    found: set[str] = set()
    while waiting:
        commit_id = waiting.pop()
        if commit_id not in found:
            found.add(commit_id)
            commit = folder.commit(commit_id)
            named.update(entry.sha256 for entry in commit.files)
            waiting.extend(commit.parents)
    return found


def _dead(folder: RepoFolder, living: Collection[str]) -> list[Path]:
    """Returns the files of all other commits, children before their parents."""
    dead = {commit_id: path for commit_id, path in folder.stored().items() if commit_id not in living}
    parents = {commit_id: _parents(commit_id, folder) for commit_id in dead}
    order = reversed(list(TopologicalSorter(parents).static_order()))
    return [dead[commit_id] for commit_id in order if commit_id in dead]


def _parents(commit_id: str, folder: RepoFolder) -> tuple[str, ...]:
    try:
        return folder.commit(commit_id).parents
    except IntegrityError:  # nothing reaches it, and nobody can read it
        return ()
