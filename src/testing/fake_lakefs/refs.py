"""References: a branch, a tag, a commit id or the start of one, and what may follow it (`~2`, `^`, `@`, `$`)."""

import re
from dataclasses import dataclass

from src.testing.fake_lakefs.commits import Commit
from src.testing.fake_lakefs.entries import Entry, Tree
from src.testing.fake_lakefs.errors import ApiError, invalid, not_found
from src.testing.fake_lakefs.repository import Branch, Repository

_PARTS = re.compile(r"(?:^|[~^@$])[^~^@$]*")
_HASH = re.compile(r"[0-9a-fA-F]{1,64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reference means: a commit, or a branch with what is not committed on it."""

    repository: Repository
    commit: Commit
    branch: Branch | None = None
    staging_only: bool = False

    def entry(self, path: str) -> Entry:
        """Returns an object; 404 where there is none."""
        found = self.repository.entry(self.branch, path) if self.branch else self.commit.tree.get(path)
        if found is None:
            raise not_found()
        return found

    @property
    def tree(self) -> Tree:
        """The objects, on a branch the uncommitted ones included."""
        return self.repository.working_tree(self.branch) if self.branch else self.commit.tree


def resolve(repository: Repository, text: str) -> Reference:
    """Returns what a reference means; 404 where nothing has that name, 400 where it cannot be one."""
    base, *modifiers = _PARTS.findall(text) or [""]
    if not base:
        raise invalid("ref")
    found = _named(repository, base)
    if modifiers in (["@"], ["$"]):
        return _of_branch(found, modifiers[0])
    commit = found.commit
    for modifier in modifiers:
        commit = _ancestor(repository, commit, modifier)
    return Reference(repository, commit) if modifiers else found


def resolve_commit(repository: Repository, text: str) -> Commit:
    """Returns the commit that a reference means: of a branch, its head."""
    found = resolve(repository, text)
    if found.staging_only:
        raise ApiError(400, f"reference '{text}': reference to staging area with $ is not a commit")
    return found.commit


def _named(repository: Repository, name: str) -> Reference:
    """A whole commit id comes first, then a branch, a tag, and the start of a commit id."""
    by_id = repository.commits.find(name) if _HASH.fullmatch(name) else None
    if by_id and by_id.id == name:
        return Reference(repository, by_id)
    if name in repository.branches:
        branch = repository.branches[name]
        return Reference(repository, repository.head(branch), branch)
    if name in repository.tags:
        return Reference(repository, repository.commits[repository.tags[name]])
    if by_id:
        return Reference(repository, by_id)
    raise not_found()


def _of_branch(found: Reference, modifier: str) -> Reference:
    if found.branch is None:
        raise invalid("ref")
    if modifier == "@":
        return Reference(found.repository, found.commit)
    return Reference(found.repository, found.commit, found.branch, staging_only=True)


def _ancestor(repository: Repository, commit: Commit, modifier: str) -> Commit:
    kind, count = modifier[0], modifier[1:] or "1"
    if kind not in "~^" or not count.isdecimal():
        raise invalid("ref")
    if kind == "^":
        if int(count) > len(commit.parents):
            raise invalid("ref")
        return repository.commits[commit.parents[int(count) - 1]] if int(count) else commit
    for _ in range(int(count)):
        if not commit.parents:
            raise not_found()
        commit = repository.commits[commit.parents[0]]
    return commit
