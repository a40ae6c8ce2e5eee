"""Moves a branch forward: by a new tree, or by what another line of commits changed.

The caller holds the repository's lock.
"""

from src.core.errors import InvalidInputError
from src.core.stores.base import Commit
from src.core.stores.commits import compose
from src.core.stores.history import merge_base, merge_trees
from src.core.stores.repo_folder import DEFAULT_BRANCH, RepoFolder


def advance(folder: RepoFolder, branch: str, draft: Commit) -> Commit:
    """Commits the draft's tree onto a branch; a new branch begins at the default branch's commit.

    Returns the present commit where the tree is the same.
    """
    heads = folder.branches()
    head = heads.get(branch, heads[DEFAULT_BRANCH])
    present = folder.commit(head) if head else None
    if present and present.files == draft.files:
        if branch not in heads:
            folder.point(branch, head)
        return present
    commit = compose(draft.repo, (head,) if head else (), draft.files, draft.message, draft.metadata)
    folder.add(commit, branch)
    return commit


def join(folder: RepoFolder, into: str, theirs: Commit, message: str) -> Commit:
    """Brings what `theirs` changed into a branch: fast-forward where possible, else three-way by path."""
    head = folder.require_branch(into)
    base = merge_base(head, theirs.id, folder.commit) if head else None
    if not head or (base and base.id == head != theirs.id):
        folder.point(into, theirs.id)
        return theirs
    ours = folder.commit(head)
    files = merge_trees(base.files if base else (), ours.files, theirs.files)
    if tuple(files) == ours.files:
        raise InvalidInputError(f"{into!r} already has every change of {theirs.id[:12]}: there is nothing to merge")
    commit = compose(theirs.repo, (head, theirs.id), files, message, {})
    folder.add(commit, into)
    return commit
