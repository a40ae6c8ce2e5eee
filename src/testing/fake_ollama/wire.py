"""Bytes that leave: JSON, lines and times written as Ollama's Go code writes them."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from src.testing.fake_ollama.errors import ApiError

JsonObject = dict[str, Any]
T = TypeVar("T")

JSON_UTF8 = "application/json; charset=utf-8"
JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
NO_END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def compact(value: object) -> bytes:
    """Returns compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_answer(value: object, status: int = 200, media_type: str = JSON_UTF8) -> Response:
    """Returns a JSON answer under exactly this content type."""
    return Response(compact(value), status, headers={"content-type": media_type})


def error_answer(error: ApiError, media_type: str = JSON_UTF8) -> Response:
    """Returns a refusal in Ollama's own form."""
    return json_answer({"error": error.message}, error.status, media_type)


def go_time(nanoseconds: int | None = None) -> str:
    """Returns a time since 1970, now by default, as Go's RFC3339Nano: no zeros at the end."""
    seconds, fraction = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"


async def started(events: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Waits for the first event, so that what fails before it can still become an HTTP status."""
    first = await anext(events)

    async def with_first() -> AsyncGenerator[T]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return with_first()


class LineStream(Response):
    """An answer whose lines leave as they are produced; the producer is closed with it."""

    def __init__(self, lines: AsyncGenerator[bytes], media_type: str) -> None:
        self.lines = lines
        self.status_code = 200
        self.background = None
        self.init_headers({"content-type": media_type})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.lines) as lines:
            async for line in lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ndjson(events: AsyncGenerator[JsonObject]) -> AsyncGenerator[bytes]:
    """Returns one JSON line for each event; a late failure is a line too, the status being out already."""
    try:
        async with aclosing(events):
            async for event in events:
                yield compact(event) + b"\n"
    except ApiError as error:
        yield compact({"error": error.message}) + b"\n"
