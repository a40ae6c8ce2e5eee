"""Endpoints for commits: making, finding, listing, comparing and merging them."""

from collections.abc import Iterator
from datetime import datetime
from itertools import dropwhile, islice
from typing import Any

from src.testing.fake_lakefs.asks import Ask, Schema
from src.testing.fake_lakefs.branches_api import changes_page
from src.testing.fake_lakefs.commits import Commit, CommitText
from src.testing.fake_lakefs.diffing import Strategy, three_dot, two_dot
from src.testing.fake_lakefs.entries import same
from src.testing.fake_lakefs.errors import ApiError, ConflictError, not_found
from src.testing.fake_lakefs.refs import resolve, resolve_commit
from src.testing.fake_lakefs.repository import MergeWish, Repository
from src.testing.fake_lakefs.server_api import USER
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import Answer, JsonObject, amount_of, json_answer, page

COMMIT = Schema(
    "CommitCreation",
    {"message": str, "metadata": dict, "date": int, "allow_empty": bool, "force": bool},
    ("message",),
)
MERGE = Schema(
    "Merge",
    {
        "message": str,
        "metadata": dict,
        "strategy": str,
        "force": bool,
        "allow_empty": bool,
        "squash_merge": bool,
    },
)


class CommitsApi:
    """Makes commits and walks through them."""

    def __init__(self, state: State) -> None:
        self._state = state

    def commit(self, ask: Ask) -> Answer:
        """Commits what is staged on a branch; commits of one branch stand in one line, however they arrive."""
        given = ask.json(COMMIT)
        repository = self._state.writable(ask.names["repository"], given.get("force", False))
        branch = repository.branch(ask.names["branch"])
        made = repository.commit(branch, _text(given, given["message"]), given.get("allow_empty", False))
        return json_answer(_shown(made), 201)

    def get(self, ask: Ask) -> Answer:
        """Returns the commit that a reference means."""
        repository = self._state.repository(ask.names["repository"])
        try:
            return json_answer(_shown(resolve_commit(repository, ask.names["commit"])))
        except ApiError as exc:
            raise (not_found("commit") if exc.status == 404 else exc) from exc

    def log(self, ask: Ask) -> Answer:
        """Lists a reference's history, the newest first; of some paths, the commits that changed them."""
        repository = self._state.repository(ask.names["repository"])
        commits = _history(ask, repository)
        objects, prefixes = _given(ask, "objects"), _given(ask, "prefixes")
        if objects or prefixes:
            commits = (commit for commit in commits if _touches(repository, commit, objects, prefixes))
        if ask.flag("limit"):
            commits = islice(commits, amount_of(ask))
        return page(ask, commits, lambda commit: commit.id, _shown)

    def diff(self, ask: Ask) -> Answer:
        """Lists what the right reference changed since both parted; with `two_dot`, how it differs from the left."""
        repository = self._state.repository(ask.names["repository"])
        left = resolve_commit(repository, ask.names["left"])
        right = resolve(repository, ask.names["right"])
        if ask.text("type") == "two_dot":
            tree = right.tree if right.staging_only else right.commit.tree
            return changes_page(ask, two_dot(left.tree, tree))
        base = repository.commits.merge_base(right.commit, left)
        return changes_page(ask, three_dot(base.tree, left.tree, right.commit.tree))

    def merge(self, ask: Ask) -> Answer:
        """Merges a reference into a branch; a conflict is a 409 without a reference."""
        given = ask.json(MERGE)
        repository = self._state.writable(ask.names["repository"], given.get("force", False))
        branch, source = repository.branch(ask.names["branch"]), ask.names["ref"]
        strategy = _strategy(given.get("strategy"))
        text = _text(given, given.get("message") or f"Merge '{source}' into '{branch.name}'")
        wish = MergeWish(text, strategy, given.get("allow_empty", False), given.get("squash_merge", False))
        try:
            made = repository.merge(resolve_commit(repository, source), branch, wish)
        except ConflictError:
            return json_answer({"reference": ""}, 409)
        return json_answer({"reference": made.id})

    def merge_base(self, ask: Ask) -> Answer:
        """Returns where a reference and a branch parted."""
        repository = self._state.repository(ask.names["repository"])
        source = resolve_commit(repository, ask.names["ref"])
        destination = resolve_commit(repository, ask.names["branch"])
        base = repository.commits.merge_base(source, destination)
        ids = {"source_commit_id": source.id, "destination_commit_id": destination.id, "base_commit_id": base.id}
        return json_answer(ids)


def _history(ask: Ask, repository: Repository) -> Iterator[Commit]:
    """Walks from the reference, past `after`, to `stop_at` or to what is older than `since`."""
    start = resolve_commit(repository, ask.names["ref"])
    stop = resolve_commit(repository, ask.text("stop_at")).id if ask.text("stop_at") else None
    oldest = datetime.fromisoformat(ask.text("since")).timestamp() * 1e9 if ask.text("since") else 0
    commits = repository.commits.log(start, ask.flag("first_parent"))
    if ask.text("after"):
        after = resolve_commit(repository, ask.text("after"))
        commits = dropwhile(lambda commit: commit.id != after.id, commits)
        next(commits, None)
    for commit in commits:
        if commit.created < oldest:
            return
        yield commit
        if commit.id == stop:
            return


def _touches(repository: Repository, commit: Commit, objects: list[str], prefixes: list[str]) -> bool:
    """Whether a commit changed one of these; a merge counts as changing nothing itself."""
    if len(commit.parents) != 1:
        return False
    before = repository.commits[commit.parents[0]].tree
    if any(not same(before.get(path), commit.tree.get(path)) for path in objects):
        return True
    return any(change.path.startswith(tuple(prefixes)) for change in two_dot(before, commit.tree))


def _strategy(name: str | None) -> Strategy:
    match name:
        case None | "" | "default":
            return "default"
        case "source-wins" | "dest-wins":
            return name
        case _:
            raise ApiError(400, "invalid merge strategy")


def _given(ask: Ask, name: str) -> list[str]:
    return [value for value in ask.query.get(name, []) if value]


def _text(given: dict[str, Any], message: str) -> CommitText:
    return CommitText(message, USER, given.get("metadata"), given.get("date"))


def _shown(commit: Commit) -> JsonObject:
    return {
        "committer": commit.committer,
        "creation_date": commit.created // 1_000_000_000,
        "generation": commit.generation,
        "id": commit.id,
        "message": commit.message,
        "meta_range_id": commit.tree_id,
        "metadata": dict(commit.metadata),
        "parents": list(commit.parents),
        "version": 1,
    }
