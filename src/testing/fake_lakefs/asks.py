"""A request as the endpoints see it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import parse_qs

from src.testing.fake_lakefs.bodies import Body
from src.testing.fake_lakefs.errors import ApiError, bad_body

_TYPES: Mapping[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    list: "an array",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class Schema:
    """The JSON that an endpoint takes: its name in lakeFS's API, and its fields."""

    name: str
    fields: Mapping[str, type]
    required: tuple[str, ...] = ()

    def read(self, body: bytes) -> dict[str, Any]:
        """Returns the fields that were given and are not null; 400 where they do not fit."""
        given = _object(body)
        for name in self.required:
            if given.get(name) is None:
                raise bad_body(self.name, f'"/{name}"', f'property "{name}" is missing')
        known = {name: value for name, value in given.items() if name in self.fields and value is not None}
        for name, value in known.items():
            kind = self.fields[name]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise bad_body(self.name, f'"/{name}"', f"value must be {_TYPES[kind]}")
        return known


@dataclass(slots=True)
class Ask:
    """One request; `names` holds what its path names: repository, branch, ref, …"""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: Body
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, method: str, target: str, headers: Message, body: Body) -> "Ask":
        """Reads a request's target; its path stays as it was sent."""
        path, _, query = target.partition("?")
        return cls(method, path, parse_qs(query, keep_blank_values=True), headers, body)

    def text(self, name: str) -> str:
        """Returns a query parameter, empty where it is missing."""
        return self.query.get(name, [""])[0]

    def flag(self, name: str, default: bool = False) -> bool:
        """Returns a yes or no from the query."""
        return self.text(name).lower() in ("true", "1", "t") if self.text(name) else default

    @property
    def object_path(self) -> str:
        """The path of an object; 400 where it is missing."""
        if not self.text("path"):
            raise ApiError(400, "missing path: required value: validation error")
        return self.text("path")

    @property
    def force(self) -> bool:
        """Whether the client insists."""
        return self.flag("force")

    def json(self, schema: Schema) -> dict[str, Any]:
        """Reads the body."""
        return schema.read(self.body.whole())


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except ValueError as exc:
        raise ApiError(400, f"request body has an error: failed to decode request body: {exc}") from exc
    if not isinstance(given, dict):
        raise ApiError(400, "request body has an error: doesn't match schema: value must be an object")
    return given
