"""Recorded exchanges with a real Ollama, and what it means that another server answers like it.

Free to differ: generated text, ids, digests, times and counts. Everything else has to be the same: status,
content type, JSON keys and types, the texts under `VERBATIM`, and the kinds of streamed lines in their order.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "ollama" / "exchanges.jsonl"

_VERBATIM = """
    capabilities digest done done_reason error families family finish_reason format license model modelfile
    name object owned_by parameter_size parameters parent_model quantization_level role status system
    system_fingerprint template version
"""
VERBATIM = frozenset(_VERBATIM.split())
"""Keys whose values are compared as they are, once digests are replaced by their order of appearance."""

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Answer:
    """What a server answered; `client_left` where our side closed the connection midway."""

    status: int
    content_type: str | None
    body: str
    client_left: bool = False


@dataclass(frozen=True)
class Exchange:
    """A recorded request and its answer; `parts` is how many pieces the answer came in."""

    n: int
    case: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    answer: Answer
    parts: int

    def __str__(self) -> str:
        return f"{self.n} {self.case}"


def recorded_exchanges() -> list[Exchange]:
    """Reads the recordings, in the order in which they happened."""
    return [_exchange(json.loads(line)) for line in RECORDINGS.read_text(encoding="utf-8").splitlines()]


def differences(recorded: Answer, got: Answer) -> list[str]:
    """Returns how an answer differs from the recorded one, one line each; empty where it does not."""
    found = []
    for what in ("status", "content_type", "client_left"):
        if getattr(recorded, what) != getattr(got, what):
            found.append(f"{what}: recorded {getattr(recorded, what)!r}, got {getattr(got, what)!r}")
    return found + list(_body_differences(recorded, got))


def _exchange(row: dict[str, Any]) -> Exchange:
    request, response = row["request"], row["response"]
    parts = response.get("chunks", [])
    body = "".join(part["text"] for part in parts)
    headers = {name.lower(): value for name, value in response["headers"].items()}
    left = response.get("client_left", False)
    return Exchange(
        row["n"],
        row["case"],
        request["method"],
        request["path"],
        request["headers"],
        request.get("body", {}).get("text", "").encode(),
        Answer(response["status"], headers.get("content-type"), body, left),
        len(parts),
    )


def _body_differences(recorded: Answer, got: Answer) -> Iterator[str]:
    kind = (recorded.content_type or "").partition(";")[0]
    if kind == "application/json" and recorded.body:
        yield from _value_differences("body", _parsed(recorded.body), _parsed(got.body))
    elif kind in ("application/x-ndjson", "text/event-stream"):
        yield from _line_differences(_kinds_of_lines(recorded.body), _kinds_of_lines(got.body))
    elif recorded.body != got.body:
        yield f"body: recorded {recorded.body!r}, got {got.body!r}"


def _line_differences(recorded: list[str], got: list[str]) -> Iterator[str]:
    for number in range(max(len(recorded), len(got))):
        pair = [kinds[number] if number < len(kinds) else "nothing" for kinds in (recorded, got)]
        if pair[0] != pair[1]:
            yield f"kind of line {number + 1}: recorded {pair[0]}, got {pair[1]}"


def _value_differences(where: str, recorded: Any, got: Any) -> Iterator[str]:
    """Compares two shapes key by key, so that a failure names the place."""
    if isinstance(recorded, dict) and isinstance(got, dict):
        for key in sorted(recorded.keys() | got.keys()):
            if key not in got or key not in recorded:
                yield f"{where}.{key}: {'missing' if key in recorded else 'not recorded'}"
            else:
                yield from _value_differences(f"{where}.{key}", recorded[key], got[key])
    elif isinstance(recorded, list) and isinstance(got, list) and len(recorded) == len(got):
        for place, pair in enumerate(zip(recorded, got, strict=True)):
            yield from _value_differences(f"{where}[{place}]", *pair)
    elif recorded != got:
        yield f"{where}: recorded {recorded!r}, got {got!r}"


def _parsed(text: str) -> Any:
    try:
        return _shape(json.loads(_with_numbered_digests(text)))
    except ValueError:
        return f"no JSON: {text[:200]!r}"


def _kinds_of_lines(text: str) -> list[str]:
    """Returns the shape of each line or event, repeats in a row once: how many there are is free."""
    kinds = [_kind_of_line(line) for line in _with_numbered_digests(text).splitlines() if line]
    return [kind for kind, _ in groupby(kinds)]


def _kind_of_line(line: str) -> str:
    prefix, data = ("data: ", line.removeprefix("data: ")) if line.startswith("data: ") else ("", line)
    try:
        return prefix + json.dumps(_shape(json.loads(data)), sort_keys=True)
    except ValueError:
        return line


def _shape(value: Any, key: str = "") -> Any:
    """Returns a value with what is free to differ replaced by its type.

    Objects and lists in a list are kept one by one; of plain values in a list, only the types are.
    """
    if isinstance(value, dict):
        return {name: _shape(part, name) for name, part in value.items()}
    if isinstance(value, list) and key not in VERBATIM:
        nested = any(isinstance(part, dict | list) for part in value)
        return [_shape(part) for part in value] if nested else sorted({_shape(part) for part in value})
    if key in VERBATIM or value is None:
        return value
    return f"<{type(value).__name__}>"


def _with_numbered_digests(text: str) -> str:
    """Replaces each digest, and its short form in a progress line, by its order of appearance."""
    for number, digest in enumerate(dict.fromkeys(_DIGEST.findall(text)), 1):
        text = text.replace(digest, f"digest {number}")
        text = text.replace(f"pulling {digest[:12]}", f"pulling digest {number}")
    return text
