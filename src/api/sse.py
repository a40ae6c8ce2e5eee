"""Server-sent events: an answer as it comes, on the same routes as a whole one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from src.api.errors import to_json
from src.api.leaving import Watch, cut_off_error
from src.core.errors import PlatformError
from src.inference.types import InferenceRequest, JsonObject, failure_envelope

MEDIA_TYPE = "text/event-stream"
_MEDIA_TYPE = MEDIA_TYPE.encode()
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the pieces back
]
Events = AsyncGenerator[list[JsonObject], None]


def wants_events(request: InferenceRequest, scope: Scope) -> bool:
    """Whether a request asks for its answer in pieces: by `options.stream`, or by `Accept: text/event-stream`."""
    asked = request.options.get("stream")
    if asked is not None:
        return asked is True
    headers: dict[bytes, bytes] = scope["aiml.headers"]
    return _MEDIA_TYPE in headers.get(b"accept", b"")


async def send_events(events: Events, request: InferenceRequest, receive: Receive, send: Send) -> None:
    """Sends `delta` events and a last one, `result` or `error`; stops the work when the client leaves.

    Raises the `PlatformError` of a request that fails before its first piece: nothing is sent then.
    """
    watch = Watch(receive)
    try:
        async with aclosing(events):
            await _send(events, request, send, watch)
    except asyncio.CancelledError:
        if not watch.left:
            raise
    finally:
        watch.end()


async def _send(events: Events, request: InferenceRequest, send: Send, watch: Watch) -> None:
    together = await _next(events, watch)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    while together:
        await send({"type": "http.response.body", "body": b"".join(map(encoded, together)), "more_body": True})
        try:
            together = await _next(events, watch)
        except PlatformError as error:
            event = {"type": "error", **_failure(error, request)}
            await send({"type": "http.response.body", "body": encoded(event), "more_body": True})
            break
    await send({"type": "http.response.body", "body": b""})


async def _next(events: Events, watch: Watch) -> list[JsonObject]:
    try:
        return await anext(events, [])
    except asyncio.CancelledError:
        if watch.cut:
            raise cut_off_error() from None
        raise


def encoded(event: JsonObject) -> bytes:
    """Returns an event's bytes: its type as the event's name, the rest of it as JSON."""
    data = {name: value for name, value in event.items() if name != "type"}
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), to_json(data))


def _failure(error: PlatformError, request: InferenceRequest) -> JsonObject:
    return failure_envelope(
        error, request.request_id, task=request.task, engine=request.engine, model_name=request.model_name
    )
