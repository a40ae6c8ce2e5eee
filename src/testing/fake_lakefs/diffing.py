"""What differs between trees, and what a merge of them is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from src.testing.fake_lakefs.entries import Entry, Tree, same
from src.testing.fake_lakefs.errors import ConflictError

Kind = Literal["added", "removed", "changed", "conflict", "prefix_changed"]
Strategy = Literal["default", "source-wins", "dest-wins"]


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs; `size` is None for a common prefix."""

    path: str
    kind: Kind
    size: int | None


def two_dot(left: Tree, right: Tree) -> list[Change]:
    """Returns how `right` differs from `left`, by path."""
    paths = sorted(path for path in left.keys() | right.keys() if not same(left.get(path), right.get(path)))
    return [_change(path, left.get(path), right.get(path)) for path in paths]


def three_dot(base: Tree, left: Tree, right: Tree) -> list[Change]:
    """Returns what `right` changed since `base`, with conflicts where `left` changed the same otherwise."""
    found = []
    for change in two_dot(base, right):
        if same(base.get(change.path), left.get(change.path)):
            found.append(change)
        elif not same(left.get(change.path), right.get(change.path)):
            found.append(Change(change.path, "conflict", change.size))
    return found


def merged(base: Tree, destination: Tree, source: Tree, strategy: Strategy = "default") -> Tree:
    """Returns the destination with the source's changes; raises `ConflictError` unless the strategy decides."""
    result = dict(destination)
    for change in three_dot(base, destination, source):
        if change.kind == "conflict" and strategy == "default":
            raise ConflictError
        if change.kind == "conflict" and strategy == "dest-wins":
            continue
        if change.path in source:
            result[change.path] = source[change.path]
        else:
            result.pop(change.path, None)
    return result


def under(changes: list[Change], prefix: str, delimiter: str) -> Iterator[Change]:
    """Keeps what lies under a prefix, and gathers what lies deeper than a delimiter."""
    last = ""
    for change in changes:
        if not change.path.startswith(prefix):
            continue
        deeper = change.path.find(delimiter, len(prefix)) if delimiter else -1
        if deeper < 0:
            yield change
        elif (common := change.path[: deeper + len(delimiter)]) != last:
            last = common
            yield Change(common, "prefix_changed", None)


def _change(path: str, before: Entry | None, after: Entry | None) -> Change:
    if after is None:
        return Change(path, "removed", before.size if before else 0)
    return Change(path, "changed" if before else "added", after.size)
