"""`POST /inference/infer/upload`: a request whose media come as files beside it, so that nobody needs base64."""

import asyncio
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from src.api import schemas
from src.api.arrivals import Arrivals
from src.api.errors import failure_response, to_json
from src.api.infer_body import echo, request_of
from src.api.infer_form import HOW, REQUEST, InferForm, max_form_bytes
from src.api.inference_api import REFERENCE, openapi_responses, send_json
from src.api.leaving import answered
from src.api.sse import send_events, wants_events
from src.api.uploads import take_in
from src.core.config import Settings
from src.core.errors import PlatformError, QueueFullError
from src.core.threads import in_thread
from src.inference.manager import InferenceManager
from src.inference.models.base import MediaField
from src.inference.types import JsonObject

PATH = "/inference/infer/upload"
LIMITED_BY = InferForm.setting


class UploadEndpoint:
    """Takes a form in, runs the request that it holds, and removes its files however that ends."""

    def __init__(self, manager: InferenceManager, settings: Settings) -> None:
        self._manager = manager
        self._settings = settings
        self._max_body = int(settings.max_body_mb * 1_000_000)
        self._inside = 0
        self.arrivals = Arrivals(settings.data_dir / "tmp" / "uploads")

    @property
    def max_bytes(self) -> int:
        """The largest form, in bytes."""
        return max_form_bytes(self._settings.media, self._max_body)

    def route(self) -> Route:
        """Returns the route that other methods than POST meet."""
        return Route(PATH, self, methods=["POST"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["aiml.route"] = PATH
        most = self._settings.media.max_waiting
        if self._inside >= most:
            raise QueueFullError(f"{most} uploads are on their way (media.max_waiting): try again in a moment")
        self._inside += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._inside -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id: str = scope["aiml.request_id"]
        forms: list[InferForm] = []
        failure: Response | None = None
        answer: JsonObject | None = None
        folder = await in_thread(self.arrivals.new_folder)

        def make(content_type: str) -> InferForm:
            forms.append(self._form(content_type, folder))
            return forms[0]

        try:
            body = await take_in(Request(scope, receive), make, HOW)
            request = request_of(body, request_id)
            if wants_events(request, scope):
                await send_events(self._manager.events(request), request, receive, send)
            else:
                answer = await answered(self._manager, request, receive)
        except PlatformError as exc:
            repeated = echo(forms[0].body) if forms else {}
            failure = failure_response(exc, request_id, **repeated)
        finally:
            # Before the answer: whoever has it may count on nothing being left.
            await asyncio.shield(in_thread(partial(shutil.rmtree, folder, ignore_errors=True)))
        if failure is not None:
            await failure(scope, receive, send)
        elif answer is not None:
            await send_json(send, to_json(answer))

    def _form(self, content_type: str, folder: Path) -> InferForm:
        return InferForm(
            content_type, folder, self._settings.media, max_body=self._max_body, media_of=self._media_fields
        )

    def _media_fields(self, task: str, engine: str, model_name: str) -> Mapping[str, MediaField]:
        return self._manager.router.handler_for(task, engine, model_name).media


def openapi_entry() -> tuple[JsonObject, JsonObject]:
    """Returns the path item of the route and the schemas that it refers to."""
    key: Any = (schemas.UploadRequest, "validation")
    references, definitions = models_json_schema([key], ref_template=REFERENCE)
    responses, more = openapi_responses()
    file = {"type": "string", "format": "binary"}
    properties: dict[str, Any] = {
        REQUEST: references[key],
        "image": {"type": "array", "items": file, "description": "one or several, in this order"},
        "audio": file,
        "video": file,
        "document": {"type": "array", "items": file, "description": "one, or the pages of one"},
    }
    form = {
        "schema": {"type": "object", "required": [REQUEST], "properties": properties},
        "encoding": {REQUEST: {"contentType": "application/json"}},
    }
    operation = {
        "tags": ["inference"],
        "summary": "Infer from files",
        "description": "What `/inference/infer` does, with files beside the request: each fills the field of `data` "
        f"that it is named after.\n\n    {HOW}",
        "operationId": "infer_upload",
        "requestBody": {"required": True, "content": {"multipart/form-data": form}},
        "responses": responses,
    }
    return {"post": operation}, {**definitions["$defs"], **more}
