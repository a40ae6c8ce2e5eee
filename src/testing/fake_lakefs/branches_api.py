"""Endpoints for branches and what is not committed on them."""

import re

from src.testing.fake_lakefs.asks import Ask, Schema
from src.testing.fake_lakefs.diffing import Change, under
from src.testing.fake_lakefs.errors import ApiError, invalid, not_unique
from src.testing.fake_lakefs.refs import resolve_commit
from src.testing.fake_lakefs.repository import Branch
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import (
    NO_CONTENT,
    Answer,
    JsonObject,
    json_answer,
    sorted_page,
    text_answer,
)

CREATION = Schema("BranchCreation", {"name": str, "source": str, "force": bool, "hidden": bool}, ("name", "source"))
RESET = Schema("ResetCreation", {"type": str, "path": str, "force": bool}, ("type",))


class BranchesApi:
    """Creates, lists, resets and deletes branches."""

    def __init__(self, state: State) -> None:
        self._state = state

    def list_branches(self, ask: Ask) -> Answer:
        """Lists branches by name; hidden ones, as transactions make, only where asked for."""
        repository = self._state.repository(ask.names["repository"])
        hidden = ask.flag("show_hidden")
        found = [branch for branch in repository.branches.values() if hidden or not branch.hidden]
        return sorted_page(ask, found, lambda branch: branch.name, _shown)

    def create(self, ask: Ask) -> Answer:
        """Creates a branch at any reference; answers with the commit that it stands at."""
        given = ask.json(CREATION)
        repository = self._state.writable(ask.names["repository"], given.get("force", False))
        name = given["name"]
        if not re.fullmatch(r"\w[-\w]*", name, re.ASCII):
            raise invalid("argument branchID: branch id")
        if name in repository.branches:
            raise not_unique("branch already exists")
        try:
            source = resolve_commit(repository, given["source"])
        except ApiError as exc:
            raise ApiError(exc.status, f"source reference '{given['source']}': {exc.message}") from exc
        repository.branches[name] = Branch(name, source.id, given.get("hidden", False))
        return text_answer(source.id, 201)

    def get(self, ask: Ask) -> Answer:
        """Returns a branch's head."""
        repository = self._state.repository(ask.names["repository"])
        return json_answer(_shown(repository.branch(ask.names["branch"])))

    def delete(self, ask: Ask) -> Answer:
        """Deletes a branch, with what is not committed on it; never the default one."""
        repository = self._state.writable(ask.names["repository"], ask.force)
        branch = repository.branch(ask.names["branch"])
        if branch.name == repository.default_branch:
            raise ApiError(403, "cannot delete repository default branch")
        del repository.branches[branch.name]
        return NO_CONTENT

    def reset(self, ask: Ask) -> Answer:
        """Throws away uncommitted changes: all, those under a prefix, or one object's."""
        given = ask.json(RESET)
        repository = self._state.writable(ask.names["repository"], given.get("force", False))
        branch = repository.branch(ask.names["branch"])
        match given["type"]:
            case "reset":
                branch.staged = {}
            case "common_prefix":
                repository.unstage(branch, given.get("path", ""))
            case "object":
                branch.staged.pop(given.get("path", ""), None)
            case _:
                raise ApiError(400, "unknown reset type")
        return NO_CONTENT

    def uncommitted(self, ask: Ask) -> Answer:
        """Lists what a commit would change."""
        repository = self._state.repository(ask.names["repository"])
        changes = repository.uncommitted(repository.branch(ask.names["branch"]))
        return changes_page(ask, changes)


def changes_page(ask: Ask, changes: list[Change]) -> Answer:
    """Returns a page of changes."""
    kept = under(changes, ask.text("prefix"), ask.text("delimiter"))
    return sorted_page(ask, kept, lambda change: change.path, _change)


def _change(change: Change) -> JsonObject:
    if change.size is None:
        return {"path": change.path, "path_type": "common_prefix", "type": change.kind}
    return {"path": change.path, "path_type": "object", "size_bytes": change.size, "type": change.kind}


def _shown(branch: Branch) -> JsonObject:
    return {"commit_id": branch.commit_id, "id": branch.name}
