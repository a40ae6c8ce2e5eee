"""The version store on a lakeFS server: the same files, branches and commits as others see there.

Below the cache folder, whose loss costs time and leftover branches only:

    commits/, digests/    trees and digests seen before                     (`trees`)
    stat-cache.json       spares hashing unchanged files again              (`stat_cache`)
    locks/                whose turn it is among the users of this folder   (`turns`)
    writer-id             by which an upload knows what it left behind      (`upload`)
    tmp/                  what is being written

Differences from the embedded store: a new repository already has a commit, without files; a merge always
makes a commit; names of repositories and branches are narrower (`names`).

Every object goes through the server in one piece. An object store behind it may refuse pieces of more than 5 GB
(S3 does). For those lakeFS offers uploads in parts through its S3 gateway and, where `pre_sign_multipart_upload`
is set, presigned ones; this store uses neither yet, and says so when such a file is refused.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

from src.core.errors import ConflictError, InvalidInputError, NotFoundError, PlatformError, StoreUnavailableError
from src.core.stores.base import Commit, Diff, Garbage, Progress, Repo, VersionStore
from src.core.stores.checkout import Checkout
from src.core.stores.commits import compose
from src.core.stores.disk import make_folder, unique_name, write_durably
from src.core.stores.hashing import Meter
from src.core.stores.history import compare
from src.core.stores.lakefs.connection import Connection
from src.core.stores.lakefs.contents import CommitContents, damage, refuse_damaged, refuse_unplaceable
from src.core.stores.lakefs.folder import Folder
from src.core.stores.lakefs.leftovers import sweep
from src.core.stores.lakefs.merging import join
from src.core.stores.lakefs.names import check_new_branch, check_ref, check_repo_name, is_ours
from src.core.stores.lakefs.objects import Objects
from src.core.stores.lakefs.parallel import Threads
from src.core.stores.lakefs.server import Server
from src.core.stores.lakefs.trees import Trees
from src.core.stores.lakefs.turns import Turns
from src.core.stores.lakefs.upload import Services, Target, Upload
from src.core.stores.locks import locked

_FULL_ID = 64  # digits

P = ParamSpec("P")
R = TypeVar("R")


def _on_this_machine(method: Callable[P, R]) -> Callable[P, R]:
    """Turns a disk of this machine that is full, read-only or gone into `StoreUnavailableError`."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except OSError as exc:
            raise StoreUnavailableError(f"the disk of this machine cannot be used: {exc}") from exc

    return call


class LakefsStore(VersionStore):
    """A version store on the lakeFS server at `endpoint`; making one asks nothing of it.

    `namespace_prefix` is where new repositories keep their objects (`s3://bucket/prefix`; without it
    the server's own default), `timeout` the seconds to wait for an answer, `parallel` how many objects are moved
    at once. A wrong key is a `ConfigurationError`. `progress` may be called from other threads, one call at a time.
    """

    kind: ClassVar[str] = "lakefs"

    def __init__(
        self,
        endpoint: str,
        access_key_id: str,
        secret_access_key: str,
        *,
        cache_dir: Path,
        namespace_prefix: str = "",
        timeout: float = 60.0,
        parallel: int = 4,
        verify_ssl: bool = True,
    ) -> None:
        connection = Connection(endpoint, access_key_id, secret_access_key, timeout=timeout, verify_ssl=verify_ssl)
        self._cache = Path(os.path.realpath(cache_dir))
        self._locks = self._cache / "locks"
        self._threads = Threads(parallel)
        self._server = Server(connection, namespace_prefix)
        self._objects = Objects(connection)
        self._trees = Trees(self._server, self._objects, self._cache, self._threads)
        self._turns = Turns(self._server, self._locks)

    def create_repo(self, name: str, *, exist_ok: bool = False) -> Repo:
        """Creates an empty repository with the branch `main`, in a storage namespace of its own."""
        check_repo_name(name)
        try:
            return self._server.create_repo(name)
        except ConflictError as exc:
            if not exist_ok:
                raise ConflictError(f"there is a repository {name!r} already", details={"repo": name}) from exc
        return self._server.repo(name)

    def list_repos(self) -> list[Repo]:
        return sorted(self._server.repos(), key=lambda repo: repo.name)

    def list_branches(self, repo: str) -> dict[str, str]:
        """Returns branch name → commit id; the branches of uploads under way are left out."""
        check_repo_name(repo)
        found = self._server.branches(repo)
        return {name: head for name, head in sorted(found.items()) if not is_ours(name)}

    def create_branch(self, repo: str, name: str, source: str) -> str:
        check_repo_name(repo)
        check_new_branch(name)
        check_ref(source)
        head = self._server.find(repo, source).id
        try:
            self._server.create_branch(repo, name, head)
        except ConflictError as exc:
            raise ConflictError(f"the repository {repo!r} already has a branch {name!r}") from exc
        return head

    def delete_branch(self, repo: str, name: str) -> None:
        check_repo_name(repo)
        check_ref(name)
        if name == self._server.repo(repo).default_branch:
            raise ConflictError(f"{name!r} is the default branch of {repo!r} and cannot be deleted")
        self._server.delete_branch(repo, name)

    @_on_this_machine
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

        A new branch begins at the default branch's commit; a missing repository is created, and stays when
        the upload fails. Sends the files whose sha256 differs from the branch's. Raises `ConflictError`
        where a file was written to while it was read, or somebody left uncommitted changes on the branch.
        """
        check_repo_name(repo)
        check_new_branch(branch)
        compose(repo, (), (), message, metadata or {})  # refuses unusable text before the work
        self._prepare()
        folder = Folder.read(source, self._cache, progress)
        target = Target(repo, branch, self._required_repo(repo).default_branch)
        services = Services(self._server, self._objects, self._trees, self._turns, self._threads)
        upload = Upload(services, target, folder, message, metadata or {}, Meter(folder.size, progress))
        with locked(self._locks / f"upload-{folder.digest[-2:]}.lock"):  # a second one of the same tree waits for it
            return upload.run(self._writer_id())

    @_on_this_machine
    def get_commit(self, repo: str, ref: str) -> Commit:
        """Returns the commit that `ref` names; a file that somebody else put there is read once, for its sha256.

        Raises `InvalidInputError` where somebody else's objects have paths that no folder can hold.
        """
        commit = self._commit(repo, ref)
        refuse_unplaceable(commit)
        return commit

    @_on_this_machine
    def log(self, repo: str, ref: str = "main", *, limit: int = 100) -> list[Commit]:
        """Returns commits from `ref` backwards along first parents, newest first, each with its tree.

        A file that somebody else put there and that nobody has asked for yet has the sha256 "".
        """
        check_repo_name(repo)
        check_ref(ref)
        return self._trees.log(repo, ref, limit)

    @_on_this_machine
    def diff(self, repo: str, left: str, right: str) -> Diff:
        return compare(self._commit(repo, left).files, self._commit(repo, right).files)

    @_on_this_machine
    def merge(self, repo: str, source: str, into: str, *, message: str = "") -> Commit:
        """Merges a ref into a branch, three-way by path; always makes a commit.

        Raises `ConflictError` with `details["paths"]`, and `InvalidInputError` with nothing to merge.
        """
        theirs = self._commit(repo, source)
        check_ref(into)
        self._server.branch(repo, into)
        self._prepare()
        with self._turns.taken(repo, into, theirs.id):
            return join(self._server, self._trees, theirs, into, message or f"Merge {source} into {into}")

    @_on_this_machine
    def checkout(self, repo: str, ref: str, target: Path, *, progress: Progress | None = None) -> Commit:
        """Puts the tree at `ref` into `target`, verified (how is said in `checkout`), its files read-only.

        For a full commit id whose tree was seen before, only the missing bytes are asked of the server:
        nothing, where the target is intact. Raises `IntegrityError` for damaged objects, and `ConflictError` for
        a folder that holds something else and that no checkout made.
        """
        check_repo_name(repo)
        check_ref(ref)
        place = Path(os.path.realpath(target))
        if place.is_relative_to(self._cache) or self._cache.is_relative_to(place):
            raise InvalidInputError(f"{target} overlaps the cache of lakeFS at {self._cache}: choose another folder")
        commit = (self._trees.remembered(repo, ref) if len(ref) == _FULL_ID else None) or self._trees.commit(repo, ref)
        refuse_unplaceable(commit)
        contents = CommitContents(self._objects, commit)
        Checkout(commit, place, contents, progress, spread=self._threads.each, damage=damage).ensure()
        return commit

    @_on_this_machine
    def verify(self, repo: str, ref: str) -> Commit:
        """Rereads every byte from the server; raises `IntegrityError`, with `details["files"]`."""
        commit = self._commit(repo, ref)
        contents = CommitContents(self._objects, commit)
        meter = Meter(commit.size)
        whole = self._threads.each(lambda entry: contents.is_whole(entry, meter), commit.files, meter)
        if bad := [entry for entry, good in zip(commit.files, whole, strict=True) if not good]:
            raise damage(commit, bad)
        return commit

    def read(self, repo: str, ref: str, path: str, *, limit: int) -> bytes:
        """Returns the first `limit` bytes of one file at `ref`, and fetches no more.

        A whole file of a tree that was seen before is checked against its sha256.
        """
        check_repo_name(repo)
        check_ref(ref)
        commit_id = ref if len(ref) == _FULL_ID else self._server.find(repo, ref).id
        if limit <= 0:
            self._objects.size(repo, commit_id, path)
            return b""
        data = b"".join(self._objects.chunks(repo, commit_id, path, limit=limit))
        if known := self._trees.remembered(repo, commit_id):
            refuse_damaged(known, path, data)
        return data

    @_on_this_machine
    def collect_garbage(self, keep: Iterable[tuple[str, str]] = (), *, older_than: float = 86400.0) -> Garbage:
        """Removes the branches of uploads that died, and remembered trees that nobody keeps.

        Commits and objects are never touched: lakeFS collects them by the rules set in it.
        """
        removed = sweep(self._server, older_than)
        self._trees.forget(set(keep), older_than)
        return Garbage(removed, 0)

    def ping(self) -> None:
        """Raises `StoreUnavailableError` where the server is away, or does not take the credentials."""
        try:
            self._server.ping()
        except StoreUnavailableError:
            raise
        except PlatformError as exc:
            raise StoreUnavailableError(exc.message) from exc

    def _commit(self, repo: str, ref: str) -> Commit:
        check_repo_name(repo)
        check_ref(ref)
        return self._trees.commit(repo, ref)

    def _required_repo(self, name: str) -> Repo:
        try:
            return self._server.repo(name)
        except NotFoundError:
            return self.create_repo(name, exist_ok=True)

    def _prepare(self) -> None:
        for folder in (self._locks, self._cache / "tmp"):
            make_folder(folder)

    def _writer_id(self) -> str:
        """Returns what tells the uploads of this cache folder from those of others."""
        path = self._cache / "writer-id"
        with locked(self._locks / "writer-id.lock"):
            if not path.exists():
                write_durably(path, unique_name().encode(), self._cache / "tmp" / unique_name())
        return path.read_text(encoding="ascii")
