"""The body of a request for inference: read, checked, and what errors repeat of it."""

from typing import Any

import orjson

from src.core.errors import ValidationError
from src.inference.types import InferenceRequest, JsonObject

_FIELDS: dict[str, tuple[type, str]] = {
    "task": (str, "a text"),
    "engine": (str, "a text"),
    "model_name": (str, "a text"),
    "data": (dict, "an object"),
}
_KNOWN = {*_FIELDS, "options"}


def decode(body: bytes, what: str = "the body") -> Any:
    """Returns the value of a JSON body; raises `ValidationError`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ValidationError(f"{what} is no JSON: {exc}") from exc


def checked(value: Any, what: str = "the body") -> JsonObject:
    """Returns a decoded body whose fields are those of a request; raises `ValidationError` naming what is wrong."""
    if _is_right(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, dict):
        raise ValidationError(f"{what} must be an object with task, engine, model_name, data and options")
    problems = [
        f"'{name}' must be {words}" for name, (kind, words) in _FIELDS.items() if not isinstance(value.get(name), kind)
    ]
    if not isinstance(value.get("options"), dict | None):
        problems.append("'options' must be an object")
    problems += [f"unknown field '{name}'" for name in value if name not in _KNOWN]
    if problems:
        raise ValidationError("; ".join(problems), details={"problems": problems})
    return value


def _is_right(value: Any) -> bool:
    """Whether nothing needs to be said of a body; most are, and finding words takes time."""
    return (
        type(value) is dict
        and value.keys() <= _KNOWN
        and type(value.get("task")) is str
        and type(value.get("engine")) is str
        and type(value.get("model_name")) is str
        and type(value.get("data")) is dict
        and type(value.get("options")) in (dict, type(None))
    )


def request_of(body: JsonObject, request_id: str) -> InferenceRequest:
    """Returns a checked body as a request of somebody outside."""
    return InferenceRequest(
        body["task"], body["engine"], body["model_name"], body["data"], body.get("options") or {}, request_id
    )


def echo(body: Any) -> JsonObject:
    """Returns what an error repeats of a body, whatever it is."""
    if not isinstance(body, dict):
        return {}
    return {name: body[name] for name in ("task", "engine", "model_name") if isinstance(body.get(name), str)}
