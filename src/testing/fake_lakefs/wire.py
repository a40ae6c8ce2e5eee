"""Answers: JSON, text, nothing, or bytes from a file; and pages of lists."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, TypeVar

from src.testing.fake_lakefs.asks import Ask

JsonObject = dict[str, Any]
T = TypeVar("T")

MAX_PER_PAGE = 1000
PER_PAGE = 100


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes of an open file, from `start` on; whoever sends them closes it."""

    file: BinaryIO
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; `length` is announced for a body that is not sent, as HEAD does."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    part: FilePart | None = None
    length: int | None = None


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Returns JSON as Go writes it: compact, and with a new line at the end."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    kind = {"content-type": "application/json", "x-content-type-options": "nosniff"}
    return Answer(status, {**(headers or {}), **kind}, body)


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Returns an error in lakeFS's own form."""
    return json_answer({"message": message}, status, headers)


def text_answer(text: str, status: int) -> Answer:
    """Returns plain text."""
    return Answer(status, {"content-type": "text/plain; charset=utf-8"}, text.encode())


NO_CONTENT = Answer(204)


def page(ask: Ask, found: Iterable[T], key: Callable[[T], str], shown: Callable[[T], JsonObject]) -> Answer:
    """Returns the page of a list that `amount` asks for; `found` begins where the page does."""
    amount = amount_of(ask)
    taken = list(islice(found, amount + 1))
    results, more = taken[:amount], len(taken) > amount
    told = {
        "has_more": more,
        "max_per_page": MAX_PER_PAGE,
        "next_offset": key(results[-1]) if more else "",
        "results": len(results),
    }
    return json_answer({"pagination": told, "results": [shown(result) for result in results]})


def sorted_page(ask: Ask, found: Iterable[T], key: Callable[[T], str], shown: Callable[[T], JsonObject]) -> Answer:
    """Returns a page of a list that is sorted by its key, under `prefix` and past `after`."""
    prefix, after = ask.text("prefix"), ask.text("after")
    kept = [item for item in found if key(item).startswith(prefix) and key(item) > after]
    return page(ask, sorted(kept, key=key), key, shown)


def amount_of(ask: Ask) -> int:
    """Returns how many results a page may have."""
    try:
        amount = int(ask.text("amount"))
    except ValueError:
        return PER_PAGE
    return min(amount, MAX_PER_PAGE) if amount > 0 else PER_PAGE
