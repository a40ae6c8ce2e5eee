"""What the fake hub answers, before it is sent."""

import json
from dataclasses import dataclass, field
from typing import Any

from src.testing.fake_hub.repos import FakeFile


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; its body is bytes, or the content of a file (of which a range may be asked for)."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | FakeFile = b""


class Refused(Exception):  # noqa: N818
    """The hub says no, in the headers by which its client tells the reasons apart."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer = as_json({"error": message}, status, headers)


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Returns a value as a JSON answer."""
    return Answer(
        status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, json.dumps(value).encode()
    )


def redirect(status: int, location: str, headers: dict[str, str]) -> Answer:
    """Returns a redirection."""
    body = f"Redirecting to {location}".encode()
    return Answer(status, {"Content-Type": "text/plain; charset=utf-8", "Location": location, **headers}, body)
