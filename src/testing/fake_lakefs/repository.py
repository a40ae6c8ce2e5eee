"""A repository: branches with uncommitted changes, tags, and commits under them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from src.testing.fake_lakefs.commits import Commit, Commits, CommitText
from src.testing.fake_lakefs.diffing import Change, Strategy, merged, two_dot
from src.testing.fake_lakefs.entries import Entry, Tree, applied, same
from src.testing.fake_lakefs.errors import dirty_branch, no_changes, not_found

MERGE_STRATEGY = ".lakefs.merge.strategy"


@dataclass(slots=True)
class Branch:
    """A branch: its head and what is not committed yet."""

    name: str
    commit_id: str
    hidden: bool = False
    staged: dict[str, Entry | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MergeWish:
    """How to merge."""

    text: CommitText
    strategy: Strategy = "default"
    allow_empty: bool = False
    squash: bool = False


class Repository:
    """One repository; whoever calls holds the server's lock."""

    def __init__(self, id_: str, namespace: str, default_branch: str, read_only: bool) -> None:
        self.id = id_
        self.namespace = namespace
        self.default_branch = default_branch
        self.read_only = read_only
        self.created = int(time.time())
        self.commits = Commits()
        self.tags: dict[str, str] = {}
        first = self.commits.add({}, (), CommitText("Repository created"))
        self.branches = {default_branch: Branch(default_branch, first.id)}

    def clear(self) -> None:
        """Forgets everything but the repository's own record."""
        self.commits, self.branches, self.tags = Commits(), {}, {}

    def branch(self, name: str) -> Branch:
        """Returns a branch; 404 where there is none."""
        if name not in self.branches:
            raise not_found("branch")
        return self.branches[name]

    def head(self, branch: Branch) -> Commit:
        """Returns a branch's last commit."""
        return self.commits[branch.commit_id]

    def entry(self, branch: Branch, path: str) -> Entry | None:
        """Returns an object of a branch, uncommitted or committed."""
        return branch.staged[path] if path in branch.staged else self.head(branch).tree.get(path)

    def working_tree(self, branch: Branch) -> Tree:
        """Returns a branch's objects, uncommitted ones included."""
        return applied(self.head(branch).tree, branch.staged)

    def uncommitted(self, branch: Branch) -> list[Change]:
        """Returns what a commit would change."""
        head = self.head(branch).tree
        return two_dot({path: head[path] for path in branch.staged if path in head}, _present(branch.staged))

    def stage(self, branch: Branch, path: str, entry: Entry | None) -> None:
        """Puts a change under a path; one that leads back to what is committed is none."""
        if same(entry, self.head(branch).tree.get(path)):
            branch.staged.pop(path, None)
        else:
            branch.staged[path] = entry

    def unstage(self, branch: Branch, prefix: str) -> None:
        """Throws away uncommitted changes under a prefix."""
        branch.staged = {path: entry for path, entry in branch.staged.items() if not path.startswith(prefix)}

    def commit(self, branch: Branch, text: CommitText, allow_empty: bool = False) -> Commit:
        """Makes a commit of what is staged; 400 where nothing is."""
        if not branch.staged and not allow_empty:
            raise no_changes("commit")
        commit = self.commits.add(self.working_tree(branch), (branch.commit_id,), text)
        branch.staged = {}
        branch.commit_id = commit.id
        return commit

    def merge(self, source: Commit, branch: Branch, wish: MergeWish) -> Commit:
        """Merges a commit into a branch by path, always as a commit of its own.

        Raises 400 where the source has no news or the branch uncommitted changes, `ConflictError` on a conflict.
        """
        if branch.staged:
            raise dirty_branch()
        head = self.head(branch)
        base = self.commits.merge_base(source, head)
        if source.tree_id == base.tree_id and not wish.allow_empty:
            raise no_changes(f"update branch {branch.name}")
        tree = merged(base.tree, head.tree, source.tree, wish.strategy)
        metadata = {**(wish.text.metadata or {}), MERGE_STRATEGY: wish.strategy}
        parents = (head.id,) if wish.squash else (head.id, source.id)
        commit = self.commits.add(tree, parents, replace(wish.text, metadata=metadata))
        branch.commit_id = commit.id
        return commit


def _present(staged: Mapping[str, Entry | None]) -> Tree:
    return {path: entry for path, entry in staged.items() if entry is not None}
