"""The interface of a version store: repositories of files with branches and commits.

A repository's files are named by POSIX paths relative to its root. A *ref* is a branch name,
a full commit id, or a prefix of one that is unique in its repository (at least 7 digits).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while files are copied; what it raises breaks the work off, whole."""


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a commit: where it is, what is in it (sha256, hex) and its size in bytes."""

    path: str
    sha256: str
    size: int


def content_digest(files: Iterable[FileEntry]) -> str:
    """Returns the digest of a tree: `sha256:` and the hash of its sorted manifest.

    The manifest is the compact JSON list of `[path, sha256, size]`, sorted by path (code points), in UTF-8.
    It does not depend on the store, the repository, the commit or any time.
    """
    rows = [[entry.path, entry.sha256, entry.size] for entry in sorted(files)]
    manifest = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit and the whole tree at it. `created_at` is in seconds since 1970."""

    id: str
    repo: str
    message: str
    parents: tuple[str, ...]
    created_at: float
    files: tuple[FileEntry, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The content digest of the tree."""
        return content_digest(self.files)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(entry.size for entry in self.files)


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository. `created_at` is in seconds since 1970."""

    name: str
    default_branch: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed from one ref to another, as sorted paths."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a collection removed: how many pieces (contents, commits or leftover branches) and bytes."""

    removed: int
    bytes_freed: int


class VersionStore(ABC):
    """Holds versioned trees of files. Every method blocks; every method may be called from any thread.

    Raises `NotFoundError` for a repository, branch, commit or path that is not there, `ConflictError`
    for one that exists already (and for merge conflicts, naming the paths in `details`),
    `InvalidInputError` for a bad name, `IntegrityError` where bytes differ from their digest, and
    `StoreUnavailableError` where the store cannot be reached.
    """

    kind: ClassVar[str]

    @abstractmethod
    def create_repo(self, name: str, *, exist_ok: bool = False) -> Repo:
        """Creates an empty repository with the branch `main`."""

    @abstractmethod
    def list_repos(self) -> list[Repo]:
        """Returns every repository, sorted by name."""

    @abstractmethod
    def list_branches(self, repo: str) -> dict[str, str]:
        """Returns branch name → commit id ("" for a branch without a commit)."""

    @abstractmethod
    def create_branch(self, repo: str, name: str, source: str) -> str:
        """Creates a branch at the ref `source`; returns its commit id."""

    @abstractmethod
    def delete_branch(self, repo: str, name: str) -> None:
        """Deletes a branch; the default branch is refused with `ConflictError`."""

    @abstractmethod
    def upload(
        self,
        repo: str,
        source: Path,
        *,
        branch: str = "main",
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Commit:
        """Commits the tree below the folder `source` as the new state of the branch, whole or not at all.

        Creates the repository and the branch where they are missing. A tree equal to the branch's
        present one makes no commit: the present one is returned.
        """

    @abstractmethod
    def get_commit(self, repo: str, ref: str) -> Commit:
        """Returns the commit that `ref` names."""

    @abstractmethod
    def log(self, repo: str, ref: str = "main", *, limit: int = 100) -> list[Commit]:
        """Returns commits from `ref` backwards along first parents, newest first."""

    @abstractmethod
    def diff(self, repo: str, left: str, right: str) -> Diff:
        """Returns what changed from `left` to `right`."""

    @abstractmethod
    def merge(self, repo: str, source: str, into: str, *, message: str = "") -> Commit:
        """Merges the ref `source` into the branch `into` (three-way by path)."""

    @abstractmethod
    def checkout(self, repo: str, ref: str, target: Path, *, progress: Progress | None = None) -> Commit:
        """Puts the tree at `ref` into the folder `target`, verified, whole or not at all.

        A target that already holds exactly that commit, untouched since it was verified, is left as it is.
        """

    @abstractmethod
    def verify(self, repo: str, ref: str) -> Commit:
        """Rereads every byte of the commit; raises `IntegrityError` naming the files that differ."""

    @abstractmethod
    def read(self, repo: str, ref: str, path: str, *, limit: int) -> bytes:
        """Returns the first `limit` bytes of one file at `ref`; raises `NotFoundError` without it."""

    @abstractmethod
    def collect_garbage(self, keep: Iterable[tuple[str, str]] = (), *, older_than: float = 86400.0) -> Garbage:
        """Removes what no branch reaches, nor any of the (repository, commit id) in `keep`.

        What was written within the last `older_than` seconds stays: somebody may be about to refer to it.
        """

    @abstractmethod
    def ping(self) -> None:
        """Raises `StoreUnavailableError` where the store cannot be used."""
