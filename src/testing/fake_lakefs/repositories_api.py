"""Endpoints for repositories."""

import re

from src.testing.fake_lakefs.asks import Ask, Schema
from src.testing.fake_lakefs.errors import ApiError, bad_body
from src.testing.fake_lakefs.repository import Repository
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import NO_CONTENT, Answer, JsonObject, json_answer, sorted_page

NAME = "^[a-z0-9][a-z0-9-]{2,62}$"
CREATION = Schema(
    "RepositoryCreation",
    {"name": str, "storage_namespace": str, "default_branch": str, "sample_data": bool, "read_only": bool},
    ("name", "storage_namespace"),
)


class RepositoriesApi:
    """Creates, lists and deletes repositories."""

    def __init__(self, state: State) -> None:
        self._state = state

    def list_repositories(self, ask: Ask) -> Answer:
        """Lists repositories by name."""
        found = [known for known in self._state.repositories.values() if ask.text("search") in known.id]
        return sorted_page(ask, found, lambda known: known.id, _shown)

    def create(self, ask: Ask) -> Answer:
        """Creates a repository with one branch and one empty commit."""
        given = ask.json(CREATION)
        if not re.fullmatch(NAME, given["name"]):
            raise bad_body(CREATION.name, '"/name"', _name_problem(given["name"]))
        if given.get("sample_data"):
            raise ApiError(501, "the fake lakeFS has no sample data")
        branch = given.get("default_branch") or "main"
        made = self._state.create(given["name"], given["storage_namespace"], branch, given.get("read_only", False))
        return json_answer(_shown(made), 201)

    def get(self, ask: Ask) -> Answer:
        """Returns a repository's record."""
        return json_answer(_shown(self._state.repository(ask.names["repository"])))

    def metadata(self, ask: Ask) -> Answer:
        """Returns a repository's metadata: none."""
        self._state.repository(ask.names["repository"])
        return json_answer({})

    def delete(self, ask: Ask) -> Answer:
        """Deletes a repository, which is still seen for a while."""
        self._state.delete(ask.names["repository"], ask.force)
        return NO_CONTENT


def _shown(repository: Repository) -> JsonObject:
    return {
        "creation_date": repository.created,
        "default_branch": repository.default_branch,
        "id": repository.id,
        "read_only": repository.read_only,
        "storage_id": "",
        "storage_namespace": repository.namespace,
    }


def _name_problem(name: str) -> str:
    """Tells that a name does not fit, with the schema and the value, as lakeFS's validator does."""
    schema = f'Schema:\n  {{\n    "pattern": "{NAME}",\n    "type": "string"\n  }}'
    return f'string doesn\'t match the regular expression "{NAME}"\n{schema}\n\nValue:\n  "{name}"\n'
