"""The embedded version store: content-addressed, on the local disk, no server needed.

Below the root:

    blobs/sha256/ab/<hex>          every content once                      (`blobs`)
    repos/<name>/repo.json         name, default branch, time of creation  (`repo_folder`)
    repos/<name>/commits/<id>.json canonical JSON, its sha256 is the id    (`commits`)
    repos/<name>/refs/<branch>     a commit id
    locks/<name>.lock              held while a repository is written
    store.lock                     keeps writers and collections apart     (`garbage`)
    stat-cache.json                spares hashing unchanged files again    (`stat_cache`)
    tmp/                           what is being written; swept after a day

An upload writes blobs, then the commit, then the ref, each flushed to disk before the next: killed
at any point it leaves the old state, and at most blobs that nothing refers to, which a collection removes.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from src.core.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, StoreUnavailableError
from src.core.stores.base import Commit, Diff, Garbage, Progress, Repo, VersionStore
from src.core.stores.blobs import Blobs, damage
from src.core.stores.branching import advance, join
from src.core.stores.checkout import Checkout
from src.core.stores.commits import compose
from src.core.stores.disk import make_folder, sweep
from src.core.stores.disk_errors import on_disk, shielded
from src.core.stores.garbage import Trash, collect
from src.core.stores.hashing import Meter
from src.core.stores.history import compare, first_parents
from src.core.stores.intake import take_in
from src.core.stores.locks import locked, owned, shared
from src.core.stores.names import check_branch_name, check_repo_name, is_repo_name
from src.core.stores.repo_folder import DEFAULT_BRANCH, RepoFolder
from src.core.stores.source_tree import scan
from src.core.stores.stat_cache import StatCache

_LEFTOVER_AGE = 24 * 3600.0  # seconds


class LocalStore(VersionStore):
    """A version store in the folder `root`, which is made at the first write.

    Any number of threads and processes may use one root. Writers of one repository take turns, those
    of different repositories do not wait for each other, and readers never wait. `progress` may be called
    from other threads, one call at a time.
    """

    kind: ClassVar[str] = "local"

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._blobs = Blobs(self.root)
        self._temp = self.root / "tmp"
        self._lock = self.root / "store.lock"

    @on_disk
    def create_repo(self, name: str, *, exist_ok: bool = False) -> Repo:
        folder = self._folder(name)
        with self._writing(name):
            if not folder.exists():
                return folder.create()
        repo = folder.load()
        if not exist_ok:
            raise ConflictError(f"there is a repository {name!r} already", details={"repo": name})
        return repo

    @on_disk
    def list_repos(self) -> list[Repo]:
        names = sorted(path.name for path in (self.root / "repos").glob("*") if is_repo_name(path.name))
        return [self._folder(name).load() for name in names]

    @on_disk
    def list_branches(self, repo: str) -> dict[str, str]:
        return self._open(repo).branches()

    @on_disk
    def create_branch(self, repo: str, name: str, source: str) -> str:
        folder = self._open(repo)
        with self._writing(repo):
            folder.refuse_branch(name)
            head = folder.resolve(source)
            folder.point(name, head)
        return head

    @on_disk
    def delete_branch(self, repo: str, name: str) -> None:
        folder = self._open(repo)
        with self._writing(repo):
            folder.require_branch(name)
            if name == DEFAULT_BRANCH:
                raise ConflictError(f"{name!r} is the default branch of {repo!r} and cannot be deleted")
            folder.drop(name)

    @on_disk
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
        """Commits the tree below `source` (what counts is said in `source_tree`), whole or not at all.

        A new branch begins at the default branch's commit. Raises `ConflictError` where a file was
        written to while it was read.
        """
        folder = self._folder(repo)
        check_branch_name(branch)
        draft = compose(repo, (), (), message, metadata or {})  # refuses unusable text before the work
        files = scan(source)
        self._prepare()
        progress = shielded(progress)
        entries = take_in(files, self._blobs, self.root, progress)
        with self._writing(repo):
            if not all(self._blobs.holds(entry.sha256, entry.size) for entry in entries):
                entries = take_in(files, self._blobs, self.root, progress)  # a collection came between
            if not folder.exists():
                folder.create()
            folder.load()
            return advance(folder, branch, replace(draft, files=entries))

    @on_disk
    def get_commit(self, repo: str, ref: str) -> Commit:
        folder = self._open(repo)
        return folder.commit(folder.resolve(ref))

    @on_disk
    def log(self, repo: str, ref: str = "main", *, limit: int = 100) -> list[Commit]:
        folder = self._open(repo)
        return first_parents(folder.resolve(ref), folder.commit, limit)

    @on_disk
    def diff(self, repo: str, left: str, right: str) -> Diff:
        return compare(self.get_commit(repo, left).files, self.get_commit(repo, right).files)

    @on_disk
    def merge(self, repo: str, source: str, into: str, *, message: str = "") -> Commit:
        """Merges a ref into a branch: fast-forward where possible, else three-way by path.

        Raises `ConflictError` with `details["paths"]`, and `InvalidInputError` with nothing to merge.
        """
        folder = self._open(repo)
        with self._writing(repo):
            theirs = folder.commit(folder.resolve(source))
            return join(folder, into, theirs, message or f"Merge {source} into {into}")

    @on_disk
    def checkout(self, repo: str, ref: str, target: Path, *, progress: Progress | None = None) -> Commit:
        """Puts the tree at `ref` into `target`, verified (how is said in `checkout`), its files read-only.

        Raises `IntegrityError` for damaged blobs, and `ConflictError` for a folder that holds something
        else and that no checkout made.
        """
        commit = self.get_commit(repo, ref)
        place = Path(os.path.realpath(target))
        if place.is_relative_to(self.root) or self.root.is_relative_to(place):
            raise InvalidInputError(f"{target} overlaps the version store at {self.root}: choose another folder")
        with self._doubting():
            Checkout(commit, place, self._blobs, shielded(progress)).ensure()
        return commit

    @on_disk
    def verify(self, repo: str, ref: str) -> Commit:
        """Rereads every byte; raises `IntegrityError`, with `details["files"]`, for missing or wrong ones."""
        commit = self.get_commit(repo, ref)
        with self._doubting():
            if bad := self._blobs.damaged(commit.files, Meter(commit.size)):
                raise damage(commit, bad)
        return commit

    @on_disk
    def read(self, repo: str, ref: str, path: str, *, limit: int) -> bytes:
        """Returns the first `limit` bytes of one file at `ref`; a whole file is checked against its sha256."""
        if limit < 0:
            raise InvalidInputError(f"{limit} is no number of bytes to read: give 0 or more")
        commit = self.get_commit(repo, ref)
        entry = next((entry for entry in commit.files if entry.path == path), None)
        if entry is None:
            raise NotFoundError(f"there is no {path!r} in {repo}@{commit.id[:12]}", details={"path": path})
        with self._doubting():
            if (data := self._blobs.read(entry, limit)) is None:
                raise damage(commit, [entry])
        return data

    @on_disk
    def collect_garbage(self, keep: Iterable[tuple[str, str]] = (), *, older_than: float = 86400.0) -> Garbage:
        """Removes commits that nothing reaches and blobs that no commit names (how is said in `garbage`).

        A kept commit that is not there is no error; a damaged repository is an `IntegrityError`, and nothing
        is removed. `bytes_freed` leaves out what a hard-linked checkout still holds.
        """
        if not (self.root / "repos").is_dir():
            return Garbage(0, 0)
        self._prepare()
        trash = Trash(self._temp)
        with owned(self._lock):
            names = [path.name for path in (self.root / "repos").iterdir() if is_repo_name(path.name)]
            collect({name: self._folder(name) for name in names}, self._blobs, trash, keep, older_than)
        return trash.empty()

    def ping(self) -> None:
        """Raises `StoreUnavailableError` where the root is no writable folder, nor can become one."""
        nearest = next(path for path in (self.root, *self.root.parents) if os.path.lexists(path))
        if not (nearest.is_dir() and os.access(nearest, os.R_OK | os.W_OK | os.X_OK)):
            raise StoreUnavailableError(
                f"the local version store {self.root} cannot be used: {nearest} is not writable"
            )

    def _folder(self, repo: str) -> RepoFolder:
        check_repo_name(repo)
        return RepoFolder(self.root / "repos" / repo, self._temp)

    def _open(self, repo: str) -> RepoFolder:
        folder = self._folder(repo)
        folder.load()
        return folder

    @contextmanager
    def _writing(self, repo: str) -> Iterator[None]:
        """Holds the repository's lock."""
        self._prepare()
        with shared(self._lock), locked(self.root / "locks" / f"{repo}.lock"):
            yield

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """After damage has shown, nothing is believed unread, so that an upload of good files repairs it."""
        try:
            yield
        except IntegrityError:
            StatCache(self.root).clear()
            raise

    def _prepare(self) -> None:
        for folder in (self._temp, self.root / "repos", self.root / "locks"):
            make_folder(folder)
        sweep(self._temp, _LEFTOVER_AGE)
