"""Reads server-sent events, without the code under test."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.service import CLIENT

Event = tuple[str, dict[str, Any]]


@contextmanager
def streamed(url: str, body: Any, **kwargs: Any) -> Iterator[tuple[httpx.Response, Iterator[Event]]]:
    """Posts JSON; yields the answer's head and its events, as they come."""
    with CLIENT.stream("POST", url, json=body, timeout=kwargs.pop("timeout", 120), **kwargs) as response:
        yield response, events_of(response)


def events_of(response: httpx.Response) -> Iterator[Event]:
    """Yields name and data of each event."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
