"""Endpoints for tags."""

from src.testing.fake_lakefs.asks import Ask, Schema
from src.testing.fake_lakefs.errors import invalid, not_found, not_unique
from src.testing.fake_lakefs.refs import resolve_commit
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import NO_CONTENT, Answer, JsonObject, json_answer, sorted_page

CREATION = Schema("TagCreation", {"id": str, "ref": str, "force": bool}, ("id", "ref"))
_FORBIDDEN = ("..", "//", "@{", *"^:?*[\\")
_BAD_ENDS = (".", ".lock", "/")


class TagsApi:
    """Creates, lists and deletes names for commits."""

    def __init__(self, state: State) -> None:
        self._state = state

    def list_tags(self, ask: Ask) -> Answer:
        """Lists tags by name."""
        tags = self._state.repository(ask.names["repository"]).tags
        return sorted_page(ask, tags.items(), lambda tag: tag[0], _shown)

    def create(self, ask: Ask) -> Answer:
        """Gives a commit a name that stays with it."""
        given = ask.json(CREATION)
        repository = self._state.writable(ask.names["repository"], given.get("force", False))
        name = given["id"]
        if not _may_be_tag(name):
            raise invalid("argument tagID: tag id")
        if name in repository.tags:
            raise not_unique("tag already exists")
        repository.tags[name] = resolve_commit(repository, given["ref"]).id
        return json_answer(_shown((name, repository.tags[name])), 201)

    def get(self, ask: Ask) -> Answer:
        """Returns a tag's commit."""
        tags = self._state.repository(ask.names["repository"]).tags
        if ask.names["tag"] not in tags:
            raise not_found("tag")
        return json_answer(_shown((ask.names["tag"], tags[ask.names["tag"]])))

    def delete(self, ask: Ask) -> Answer:
        """Deletes a tag."""
        tags = self._state.writable(ask.names["repository"], ask.force).tags
        if tags.pop(ask.names["tag"], None) is None:
            raise not_found("tag")
        return NO_CONTENT


def _may_be_tag(name: str) -> bool:
    """Git's rules, with `~` allowed."""
    if not name or name == "@" or name.endswith(_BAD_ENDS) or any(ord(letter) <= 0x20 for letter in name):
        return False
    return not any(part in name for part in _FORBIDDEN)


def _shown(tag: tuple[str, str]) -> JsonObject:
    return {"commit_id": tag[1], "id": tag[0]}
