"""Commits: their ids, their order in a log, and where two lines of them meet."""

import hashlib
import heapq
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from src.testing.fake_lakefs.entries import Tree, tree_id
from src.testing.fake_lakefs.errors import not_found

ID_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit; `created` in nanoseconds since 1970, so that a log keeps the order within one second."""

    id: str
    tree: Tree
    tree_id: str
    parents: tuple[str, ...]
    committer: str
    message: str
    metadata: Mapping[str, str]
    created: int
    generation: int

    @property
    def newest_first(self) -> tuple[int, int, str]:
        """Sorts a log."""
        return -self.created, -self.generation, self.id


@dataclass(frozen=True, slots=True)
class CommitText:
    """What somebody says about a commit; `date` in seconds since 1970, now where None."""

    message: str
    committer: str = ""
    metadata: Mapping[str, str] | None = None
    date: int | None = None


class Commits:
    """The commits of one repository."""

    def __init__(self) -> None:
        self._by_id: dict[str, Commit] = {}

    def add(self, tree: Tree, parents: tuple[str, ...], text: CommitText) -> Commit:
        """Stores a commit under the hash of what it says."""
        created = time.time_ns() if text.date is None else text.date * 1_000_000_000
        generation = 1 + max((self._by_id[parent].generation for parent in parents), default=0)
        metadata = dict(text.metadata or {})
        identity = tree_id(tree)
        said = [identity, parents, text.committer, text.message, sorted(metadata.items()), created]
        id_ = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        commit = Commit(id_, tree, identity, parents, text.committer, text.message, metadata, created, generation)
        self._by_id[id_] = commit
        return commit

    def __getitem__(self, id_: str) -> Commit:
        return self._by_id[id_]

    def find(self, start: str) -> Commit | None:
        """Returns the only commit whose id starts like this."""
        if len(start) == ID_LENGTH:
            return self._by_id.get(start)
        found = [commit for id_, commit in self._by_id.items() if id_.startswith(start.lower())]
        return found[0] if len(found) == 1 else None

    def log(self, start: Commit, first_parent: bool = False) -> Iterator[Commit]:
        """Walks from a commit to its ancestors, the newest first."""
        waiting = [(start.newest_first, start)]
        seen = {start.id}
        while waiting:
            _, commit = heapq.heappop(waiting)
            yield commit
            for parent in commit.parents[:1] if first_parent else commit.parents:
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(waiting, (self._by_id[parent].newest_first, self._by_id[parent]))

    def merge_base(self, one: Commit, other: Commit) -> Commit:
        """Returns the common ancestor of the highest generation; 404 where there is none."""
        ancestors = {commit.id for commit in self.log(one)}
        common = [commit for commit in self.log(other) if commit.id in ancestors]
        if not common:
            raise not_found("merge base")
        return max(common, key=lambda commit: commit.generation)
