"""Repositories, branches and commits of a lakeFS server, in this platform's words."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from src.core.errors import ConfigurationError, ConflictError, InvalidInputError
from src.core.stores.base import Repo
from src.core.stores.disk import unique_name
from src.core.stores.lakefs.connection import Connection
from src.core.stores.names import is_commit_id

if TYPE_CHECKING:
    from lakefs_sdk.client import LakeFSClient
    from lakefs_sdk.models.commit import Commit as FoundCommit
    from lakefs_sdk.models.repository import Repository

DEFAULT_BRANCH = "main"
# Parts of lakeFS's texts with a 400, where the status alone does not tell.
_NO_CHANGES = "no changes"
_DIRTY = "uncommitted changes"
_NAMESPACE_TAKEN = "already in use"


class Merged(NamedTuple):
    """How a merge ended; the commit where it made one."""

    outcome: Literal["merged", "nothing", "conflict"]
    commit_id: str = ""


class Server:
    """What one lakeFS server holds."""

    def __init__(self, connection: Connection, namespace_prefix: str) -> None:
        self._connection = connection
        self._namespace_prefix = namespace_prefix

    @property
    def _client(self) -> "LakeFSClient":
        return self._connection.client

    def ping(self) -> None:
        """Asks whether the server is well and takes the credentials."""
        self._connection.ask("the health check", self._client.health_check_api.health_check)
        self._connection.ask("the user", self._client.auth_api.get_current_user)

    def create_repo(self, name: str) -> Repo:
        """Creates a repository; raises `ConflictError` where it exists."""
        namespace = self._namespace(name)
        try:
            return self._create_repo(name, namespace)
        except ConfigurationError as exc:
            if _NAMESPACE_TAKEN not in exc.message:
                raise
        # A repository that was deleted leaves its objects behind, and lakeFS refuses their place to the next.
        return self._create_repo(name, f"{namespace}-{unique_name()}")

    def repo(self, name: str) -> Repo:
        """Returns a repository."""
        found = self._connection.ask(f"repository {name!r}", self._client.repositories_api.get_repository, name)
        return _repo(found)

    def repos(self) -> Iterator[Repo]:
        """Yields every repository."""
        list_them = self._client.repositories_api.list_repositories
        return map(_repo, self._connection.pages("the repositories", list_them))

    def branch(self, repo: str, name: str) -> str:
        """Returns a branch's commit id."""
        what = f"branch {name!r} of {repo!r}"
        return self._connection.ask(what, self._client.branches_api.get_branch, repo, name).commit_id

    def branches(self, repo: str, *, prefix: str = "", hidden: bool = False) -> dict[str, str]:
        """Returns branch name → commit id."""
        options: dict[str, Any] = {"prefix": prefix, "show_hidden": True} if hidden else {}
        list_them = self._client.branches_api.list_branches
        found = self._connection.pages(f"the branches of {repo!r}", list_them, repo, **options)
        return {branch.id: branch.commit_id for branch in found if branch.id.startswith(prefix)}

    def create_branch(self, repo: str, name: str, source: str, *, hidden: bool = False) -> None:
        """Creates a branch at a commit; raises `ConflictError` where it exists."""
        from lakefs_sdk.models.branch_creation import BranchCreation

        what = f"creating branch {name!r} of {repo!r}"
        creation = BranchCreation(name=name, source=source, force=False, hidden=hidden)
        self._connection.ask(what, self._client.branches_api.create_branch, repo, creation)

    def delete_branch(self, repo: str, name: str) -> None:
        """Deletes a branch."""
        self._connection.ask(f"branch {name!r} of {repo!r}", self._client.branches_api.delete_branch, repo, name)

    def find(self, repo: str, ref: str) -> "FoundCommit":
        """Returns the commit that a branch, a tag, a commit id or the beginning of one names."""
        what = f"{ref!r} in {repo!r}"
        if is_commit_id(ref):
            return self._connection.ask(what, self._client.commits_api.get_commit, repo, ref)
        newest: FoundCommit = self._connection.ask(
            what, self._client.refs_api.log_commits, repo, ref, amount=1
        ).results[0]
        return newest

    def log(self, repo: str, ref: str, limit: int) -> list["FoundCommit"]:
        """Returns commits along first parents, newest first."""
        log = self._client.refs_api.log_commits
        return list(self._connection.pages(f"{ref!r} in {repo!r}", log, repo, ref, first_parent=True, limit=limit))

    def changed_since_base(self, repo: str, left: str, right: str) -> set[str]:
        """Returns the paths that `right` changed since the two had their last common commit."""
        what = f"{left!r} or {right!r} in {repo!r}"
        diff = self._client.refs_api.diff_refs
        return {one.path for one in self._connection.pages(what, diff, repo, left, right, type="three_dot")}

    def commit(self, repo: str, branch: str, message: str, metadata: Mapping[str, str]) -> None:
        """Commits what was sent to a branch and deleted on it; nothing is no error."""
        from lakefs_sdk.models.commit_creation import CommitCreation

        creation = CommitCreation(message=message, metadata=dict(metadata), date=None, allow_empty=False)
        try:
            self._connection.ask(
                f"branch {branch!r} of {repo!r}", self._client.commits_api.commit, repo, branch, creation
            )
        except InvalidInputError as exc:
            if _NO_CHANGES not in exc.message:
                raise

    def merge(
        self,
        repo: str,
        source: str,
        into: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        *,
        strategy: Literal["dest-wins"] | None = None,
        squash: bool = False,
        allow_empty: bool = False,
    ) -> Merged:
        """Merges the commit or branch `source` into a branch.

        Raises `ConflictError` only where somebody has left uncommitted changes on the branch.
        """
        from lakefs_sdk.models.merge import Merge

        merge = Merge(
            message=message,
            metadata=dict(metadata or {}),
            strategy=strategy,
            force=False,
            allow_empty=allow_empty,
            squash_merge=squash,
        )
        call = self._client.refs_api.merge_into_branch
        try:
            found = self._connection.ask(
                f"merging {source!r} into {into!r} of {repo!r}", call, repo, source, into, merge
            )
        except ConflictError:
            return Merged("conflict")
        except InvalidInputError as exc:
            if _NO_CHANGES in exc.message:
                return Merged("nothing")
            if _DIRTY in exc.message:
                raise _dirty(repo, into) from exc
            raise
        return Merged("merged", found.reference)

    def _create_repo(self, name: str, namespace: str) -> Repo:
        from lakefs_sdk.models.repository_creation import RepositoryCreation

        create = self._client.repositories_api.create_repository
        try:
            creation = RepositoryCreation(
                name=name, storage_id=None, storage_namespace=namespace, default_branch=DEFAULT_BRANCH
            )
            return _repo(self._connection.ask(f"creating repository {name!r}", create, creation))
        except ValueError as exc:  # InvalidInputError is one; the name has been checked before
            raise ConfigurationError(
                f"lakeFS cannot keep a repository at {namespace!r} ({exc}): set AIML_LAKEFS__STORAGE_NAMESPACE "
                "to a place that it can use, such as s3://bucket/prefix"
            ) from exc

    def _namespace(self, name: str) -> str:
        prefix = self._namespace_prefix or self._default_prefix()
        return f"{prefix}{name}" if prefix.endswith("/") else f"{prefix}/{name}"

    def _default_prefix(self) -> str:
        config = self._connection.ask("the configuration", self._client.config_api.get_config).storage_config
        if config and config.default_namespace_prefix:
            return config.default_namespace_prefix
        example = config.blockstore_namespace_example if config else "s3://example-bucket/"
        raise ConfigurationError(
            f"lakeFS at {self._connection.address} has no place of its own for new repositories: "
            f"set AIML_LAKEFS__STORAGE_NAMESPACE, for example to {example}"
        )


def _repo(found: "Repository") -> Repo:
    return Repo(found.id, found.default_branch, float(found.creation_date))


def _dirty(repo: str, branch: str) -> ConflictError:
    return ConflictError(
        f"branch {branch!r} of {repo!r} has changes that somebody has not committed: "
        "commit or revert them in lakeFS, then try again",
        details={"repo": repo, "branch": branch},
    )
