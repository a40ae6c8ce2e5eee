"""`/inference`: the one door, health, stats and the cache.

`POST /inference/infer` is an ASGI endpoint: one parse, no second validation. Its OpenAPI entry is
written by hand below.
"""

from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic.json_schema import models_json_schema
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from src.api import schemas
from src.api.errors import failure_response, json_response, to_json
from src.api.infer_body import checked, decode, echo, request_of
from src.api.leaving import answered
from src.api.sse import MEDIA_TYPE, send_events, wants_events
from src.core.errors import PayloadTooLargeError, PlatformError
from src.inference.manager import InferenceManager
from src.inference.types import JsonObject

PATH = "/inference/infer"
REFERENCE = "#/components/schemas/{model}"


class InferEndpoint:
    """Parses a body once, runs it, and stops the work when its caller goes away."""

    def __init__(self, manager: InferenceManager, max_body: int) -> None:
        self._manager = manager
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["aiml.route"] = PATH
        request_id: str = scope["aiml.request_id"]
        body: Any = None
        try:
            body = decode(await self._read(receive))
            request = request_of(checked(body), request_id)
            if wants_events(request, scope):
                await send_events(self._manager.events(request), request, receive, send)
                return
            answer = await answered(self._manager, request, receive)
        except PlatformError as exc:
            await failure_response(exc, request_id, **echo(body))(scope, receive, send)
            return
        if answer is not None:
            await send_json(send, to_json(answer))

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise PayloadTooLargeError(f"the body is larger than {self._max_body} bytes (AIML_MAX_BODY_MB)")
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)


async def send_json(send: Send, body: bytes) -> None:
    """Sends a good answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def parse(body: bytes) -> JsonObject:
    """Returns the request's object, its fields checked; raises `ValidationError` naming what is wrong."""
    return checked(decode(body))


def install(app: FastAPI, manager: InferenceManager, max_body: int) -> InferEndpoint:
    """Adds the routes of `/inference`; returns the endpoint of `POST /inference/infer`."""
    endpoint = InferEndpoint(manager, max_body)
    app.router.routes.append(Route(PATH, endpoint, methods=["POST"]))
    app.include_router(_router(manager))
    return endpoint


def _router(manager: InferenceManager) -> APIRouter:
    router = APIRouter(prefix="/inference", tags=["inference"])

    @router.get(
        "/health", response_model=None, responses={200: {"model": schemas.Health}, **schemas.failures(401, 403)}
    )
    async def health() -> Any:
        """Tells how the service is: 200 also when degraded."""
        return json_response(await manager.ahealth())

    @router.get("/stats", response_model=None, responses={200: {"model": schemas.Stats}, **schemas.failures(401, 403)})
    async def stats() -> Any:
        """Tells what was inferred, the tasks there are and what is loaded."""
        return json_response(await manager.astats())

    @router.post(
        "/cache/clear",
        response_model=None,
        responses={200: {"model": schemas.Cleared}, **schemas.failures(*schemas.GUARD)},
    )
    async def clear_cache() -> Any:
        """Unloads every model; one in use is unloaded when its requests have ended."""
        cleared = await manager.aclear_cache()
        return json_response({"success": True, "message": f"{cleared} model(s) unloaded", "cleared_models": cleared})

    return router


def openapi_entry() -> tuple[JsonObject, JsonObject]:
    """Returns the path item of `POST /inference/infer` and the schemas that it refers to."""
    key: Any = (schemas.InferBody, "validation")
    references, definitions = models_json_schema([key], ref_template=REFERENCE)
    responses, more = openapi_responses()
    operation = {
        "tags": ["inference"],
        "summary": "Infer",
        "description": "Runs any task on any engine. Every answer names the version, commit and digest behind it.",
        "operationId": "infer",
        "requestBody": {"required": True, "content": {"application/json": {"schema": references[key]}}},
        "responses": responses,
    }
    return {"post": operation}, {**definitions["$defs"], **more}


def openapi_responses() -> tuple[JsonObject, JsonObject]:
    """Returns what a request for inference may be answered with, and the schemas that it refers to."""
    models: Any = [(schemas.InferAnswer, "serialization"), (schemas.Failure, "serialization")]
    references, definitions = models_json_schema(models, ref_template=REFERENCE)
    answer: JsonObject = {"application/json": {"schema": references[models[0]]}}
    failure: JsonObject = {"application/json": {"schema": references[models[1]]}}
    answer[MEDIA_TYPE] = {
        "schema": {
            "type": "string",
            "description": "with options.stream, or `Accept: text/event-stream`: events `delta` (`text`), and last "
            "`result` (this answer, and `usage`) or `error` (a failure)",
        }
    }
    responses: JsonObject = {"200": {"description": "the answer, and what produced it", "content": answer}}
    for status, words in schemas.failures(*schemas.INFER_FAILURES).items():
        responses[str(status)] = {"description": words["description"], "content": failure}
    return responses, definitions["$defs"]
