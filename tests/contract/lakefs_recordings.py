"""Recorded exchanges with a real lakeFS, and what it means that another server answers like it.

Free to differ: ids, physical addresses, times and the lengths of JSON. Everything else has to be the same:
status, which headers there are and what the fixed ones say, and every JSON value, error texts included.
Ids are compared too, by number: the fifth id that either server ever mentioned is the fifth on both sides.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "lakefs" / "exchanges.jsonl"

TIMES = frozenset({"creation_date", "mtime"})
UNSTEADY = frozenset({"date", "x-request-id", "last-modified"})
"""Headers whose values differ by nature; `x-request-id` and `date` are not compared at all."""

# The recorder kept the headers that it knew; this one shows in the answer, so it was there.
_CUT_HEADERS = {92: {"x-lakefs-meta-sha256": "00"}}

_ID = re.compile(r"\b[0-9a-f]{64}\b")
_SHORT_ID = re.compile(r"\b[0-9a-f]{12}\b")
_ADDRESS_KEY = re.compile(r"/[0-9a-v]{20}\b")


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """A recorded request and its answer."""

    n: int
    case: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    answer: Answer

    def __str__(self) -> str:
        return f"{self.n} {self.case}"


@dataclass
class Ids:
    """The ids that one server mentioned, in the order in which it first did."""

    known: list[str] = field(default_factory=list)

    def numbered(self, text: str) -> str:
        """Replaces each id by its number, learning those that are new."""
        return _ID.sub(lambda found: f"id {self._number(found.group())}", text)

    def translated(self, text: str, other: "Ids") -> str:
        """Replaces the ids of another server, or the starts of them, by ours of the same number."""

        def ours(found: re.Match[str]) -> str:
            whole = next((known for known in other.known if known.startswith(found.group())), None)
            return self.known[other.known.index(whole)][: len(found.group())] if whole else found.group()

        return _SHORT_ID.sub(ours, _ID.sub(ours, text))

    def _number(self, id_: str) -> int:
        if id_ not in self.known:
            self.known.append(id_)
        return self.known.index(id_)


def recorded_exchanges() -> list[Exchange]:
    """Reads the recordings, in the order in which they happened."""
    return [_exchange(json.loads(line)) for line in RECORDINGS.read_text(encoding="utf-8").splitlines()]


def with_numbered_ids(answer: Answer, ids: Ids) -> Answer:
    """Returns an answer whose JSON or text has numbers for ids; other bodies stay as they are."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json":
        # Sorted, so that the order of keys does not decide which id comes first.
        text = json.dumps(json.loads(answer.body), sort_keys=True)
    elif kind == "text/plain":
        text = answer.body.decode()
    else:
        return answer
    return replace(answer, body=ids.numbered(text).encode())


def differences(recorded: Answer, got: Answer) -> list[str]:
    """Returns how an answer differs from the recorded one, one line each; empty where it does not."""
    found = []
    if recorded.status != got.status:
        found.append(f"status: recorded {recorded.status}, got {got.status}")
    found += _header_differences(recorded.headers, got.headers)
    if recorded.headers.get("content-type") == "application/json":
        return found + list(_value_differences("body", _parsed(recorded.body), _parsed(got.body)))
    if recorded.headers.get("content-length") != got.headers.get("content-length"):
        found.append("content-length differs")
    if recorded.body != got.body:
        found.append(f"body: recorded {recorded.body[:99]!r}, got {got.body[:99]!r}")
    return found


def _exchange(row: dict[str, Any]) -> Exchange:
    request, response = row["request"], row["response"]
    headers = {name.lower(): value for name, value in response["headers"].items()}
    body = b"".join(_bytes(part) for part in response.get("chunks", []))
    return Exchange(
        row["n"],
        row["case"],
        request["method"],
        request["path"],
        request["headers"] | _CUT_HEADERS.get(row["n"], {}),
        _bytes(request.get("body") or {"text": ""}),
        Answer(response["status"], headers, body),
    )


def _bytes(part: Mapping[str, str]) -> bytes:
    return base64.b64decode(part["base64"]) if "base64" in part else part["text"].encode()


def _header_differences(recorded: Mapping[str, str], got: Mapping[str, str]) -> Iterator[str]:
    for name in sorted((recorded.keys() | got.keys()) - {"date", "x-request-id", "content-length"}):
        pair = recorded.get(name), got.get(name)
        if None in pair or (name not in UNSTEADY and pair[0] != pair[1]):
            yield f"header {name}: recorded {pair[0]!r}, got {pair[1]!r}"


def _value_differences(where: str, recorded: Any, got: Any) -> Iterator[str]:
    """Compares two values key by key, so that a failure names the place."""
    if isinstance(recorded, dict) and isinstance(got, dict):
        for key in sorted(recorded.keys() | got.keys()):
            if key not in got or key not in recorded:
                yield f"{where}.{key}: {'missing' if key in recorded else 'not recorded'}"
            else:
                yield from _value_differences(f"{where}.{key}", recorded[key], got[key])
    elif isinstance(recorded, list) and isinstance(got, list) and len(recorded) == len(got):
        for place, pair in enumerate(zip(recorded, got, strict=True)):
            yield from _value_differences(f"{where}[{place}]", *pair)
    elif (type(recorded), recorded) != (type(got), got):
        yield f"{where}: recorded {recorded!r}, got {got!r}"


def _parsed(body: bytes) -> Any:
    try:
        return _steady(json.loads(body))
    except ValueError:
        return f"no JSON: {body[:200]!r}"


def _steady(value: Any, key: str = "") -> Any:
    """Returns a value with times replaced by their type, and addresses by their form."""
    if isinstance(value, dict):
        return {name: _steady(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_steady(part) for part in value]
    if key in TIMES and value != 0:
        return f"<{type(value).__name__}>"
    return _ADDRESS_KEY.sub("/<key>", value) if key == "physical_address" else value
