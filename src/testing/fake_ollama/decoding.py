"""Request bodies, read as Go's JSON decoder reads them into Ollama's structs, with its complaints."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.testing.fake_ollama.errors import ApiError
from src.testing.fake_ollama.wire import JsonObject

_KINDS = {"string": "string", "bool": "bool", "int": "number", "float64": "number"}
_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+")
_DURATION_STEP = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LITERALS = {"t": "true", "f": "false", "n": "null"}


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct: its name and the Go type of each field; a field left out here takes anything."""

    name: str
    fields: Mapping[str, str]

    def read(self, body: bytes) -> JsonObject:
        """Reads a request body; raises `ApiError` 400 with the decoder's text."""
        if not body.strip():
            raise ApiError(400, "missing request body")
        return self.check(_parse(body.decode("utf-8", "replace")))

    def check(self, value: Any) -> JsonObject:
        """Returns the object without its nulls, which Go takes as absent."""
        if not isinstance(value, dict):
            where = f"Go value of type api.{self.name}"
            raise ApiError(400, f"json: cannot unmarshal {_kind(value)} into {where}")
        for field, go_type in self.fields.items():
            if (given := value.get(field)) is not None and not _fits(given, go_type):
                where = f"Go struct field {self.name}.{field} of type {go_type}"
                raise ApiError(400, f"json: cannot unmarshal {_kind(given)} into {where}")
        return {field: given for field, given in value.items() if given is not None}


def seconds(value: Any) -> float | None:
    """Reads `keep_alive`, a number of seconds or a Go duration; one below 0 has no end."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ApiError(400, f"Unsupported type: '{_go_kind(value)}'")
    length = _go_duration(value) if isinstance(value, str) else float(value)
    return float("inf") if length < 0 else length


def image_bytes(images: list[Any]) -> list[bytes]:
    """Returns the images of a request; raises `ApiError` 400 where one is not base64."""
    try:
        return [base64.b64decode(image, validate=True) for image in images]
    except (binascii.Error, TypeError, ValueError) as exc:
        raise ApiError(400, "illegal base64 data at input byte 0") from exc


def _go_duration(text: str) -> float:
    if text in ("0", "+0", "-0"):
        return 0.0
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", text):
        raise ApiError(400, f'time: missing unit in duration "{text}"')
    if not _DURATION.fullmatch(text):
        raise ApiError(400, f'time: invalid duration "{text}"')
    length = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_STEP.findall(text))
    return -length if text.startswith("-") else length


def _fits(value: Any, go_type: str) -> bool:
    if go_type.startswith("[]"):
        return isinstance(value, list)
    if go_type.startswith("map["):
        return isinstance(value, dict)
    if go_type == "int" and isinstance(value, float):
        return False
    return _kind(value) == _KINDS[go_type]


def _kind(value: Any) -> str:
    """Returns Go's word for a JSON value."""
    words = {bool: "bool", str: "string", list: "array", dict: "object", type(None): "null"}
    return words.get(type(value), "number" if isinstance(value, int) else f"number {value}")


def _go_kind(value: Any) -> str:
    words = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
    return words[type(value)]


def _parse(text: str) -> Any:
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        # Go's decoder stops after the first value; what follows is never looked at.
        return json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)[0]
    except json.JSONDecodeError as exc:
        raise ApiError(400, _complaint(text, exc)) from exc


def _no_constant(name: str) -> Any:
    raise ApiError(400, f"invalid character '{name[0]}' looking for beginning of value")


def _complaint(text: str, error: json.JSONDecodeError) -> str:
    """Returns Go's text for what Python found wrong."""
    position = error.pos
    if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 points at the comma, Go behind it
        position += 1 + len(text[position + 1 :]) - len(text[position + 1 :].lstrip())
    literal = _LITERALS.get(text[position : position + 1], "") if error.msg == "Expecting value" else ""
    for wanted in literal:
        if text[position : position + 1] not in (wanted, ""):
            return f"invalid character '{text[position]}' in literal {literal} (expecting '{wanted}')"
        position += 1
    if position >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    return f"invalid character '{text[position]}' {_place(error.msg, text[:position])}"


def _place(message: str, before: str) -> str:
    if message.startswith("Expecting property name") or message.endswith("end of object"):
        return "looking for beginning of object key string"
    if message.startswith("Expecting ':'"):
        return "after object key"
    if message.startswith("Expecting ','"):
        in_array = before.rfind("[") > before.rfind("{")
        return "after array element" if in_array else "after object key:value pair"
    return "looking for beginning of value"
