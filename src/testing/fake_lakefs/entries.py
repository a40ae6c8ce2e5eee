"""Objects as a tree holds them, and what it means that two of them are the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """An object under a path; `metadata` is None where its upload had none, as the listings show."""

    address: str
    size: int
    checksum: str
    mtime: int
    content_type: str
    metadata: Mapping[str, str] | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What lakeFS compares: not the time and not the place, so the same bytes sent again are no change."""
        return self.size, self.checksum, self.content_type, tuple(sorted((self.metadata or {}).items()))


Tree = Mapping[str, Entry]
Staged = Mapping[str, Entry | None]
"""Uncommitted changes by path; None stands for a deletion."""


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether two objects, or two absences, are the same."""
    if one is None or other is None:
        return one is other
    return one.identity == other.identity


def applied(tree: Tree, staged: Staged) -> dict[str, Entry]:
    """Returns a tree with changes applied to it."""
    whole = dict(tree)
    for path, entry in staged.items():
        if entry is None:
            whole.pop(path, None)
        else:
            whole[path] = entry
    return whole


def tree_id(tree: Tree) -> str:
    """Returns the id of a tree, empty for an empty one.

    Unlike identity it minds times and places: the recordings have two ids for trees of equal objects.
    """
    if not tree:
        return ""
    digest = hashlib.sha256()
    for path in sorted(tree):
        digest.update(json.dumps([path, tree[path].identity, tree[path].mtime, tree[path].address]).encode())
    return digest.hexdigest()
