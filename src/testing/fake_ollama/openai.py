"""`/v1/chat/completions` and `/v1/models`: the OpenAI face of the same models."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from src.testing.fake_ollama.asks import Ask, Outcome, Piece
from src.testing.fake_ollama.completions import chat_turns, collect, make_ask
from src.testing.fake_ollama.decoding import Struct
from src.testing.fake_ollama.errors import ApiError
from src.testing.fake_ollama.generation import Generator
from src.testing.fake_ollama.store import Store
from src.testing.fake_ollama.wire import (
    EVENT_STREAM,
    JSON,
    JsonObject,
    LineStream,
    compact,
    json_answer,
    started,
)

COMPLETION = Struct("ChatCompletionRequest", {"model": "string", "messages": "[]openai.Message", "stream": "bool"})

_SAME_NAME = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
_ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


class OpenAi:
    """The endpoints under `/v1`."""

    def __init__(self, store: Store, generator: Generator) -> None:
        self._store = store
        self._generator = generator

    async def models(self, request: Request) -> Response:
        models = [
            {
                "id": stored.name.short,
                "object": "model",
                "created": stored.modified_at // 1_000_000_000,
                "owned_by": stored.name.namespace,
            }
            for stored in self._store.newest_first()
        ]
        return json_answer({"object": "list", "data": models}, media_type=JSON)

    async def chat_completions(self, request: Request) -> Response:
        try:
            body = COMPLETION.read(await request.body())
            if not body.get("messages"):
                raise ApiError(400, "[] is too short - 'messages'")
            events = await started(self._generator.answer(self._ask(body)))
            if body.get("stream", False):
                return LineStream(_events(body, events), EVENT_STREAM)
            whole, outcome = await collect(events)
        except ApiError as error:
            return json_answer(_error(error), error.status, JSON)
        return json_answer(_completion(body["model"], whole, outcome), media_type=JSON)

    def _ask(self, body: JsonObject) -> Ask:
        stored = self._store.find(body.get("model", ""))
        options: JsonObject = {"temperature": 1.0, "top_p": 1.0}
        options |= {name: body[name] for name in _SAME_NAME if name in body}
        options["num_predict"] = body.get("max_tokens", body.get("max_completion_tokens"))
        if stop := body.get("stop"):
            options["stop"] = [stop] if isinstance(stop, str) else stop
        form = _form(body.get("response_format", {}))
        native = {"model": body["model"], "options": options, "format": form}
        messages = [_message(message) for message in body["messages"]]
        return make_ask(stored, chat_turns(stored, messages), native, "chat")


def _form(response_format: JsonObject) -> Any:
    match response_format.get("type"):
        case "json_object":
            return "json"
        case "json_schema":
            return response_format["json_schema"]["schema"]
    return None


def _message(message: JsonObject) -> JsonObject:
    """Returns a message in Ollama's own form; parts of content become text and images."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return {"role": message.get("role", ""), "content": content}
    text = "".join(part["text"] for part in content if part["type"] == "text")
    urls = [part["image_url"] for part in content if part["type"] == "image_url"]
    addresses = [url["url"] if isinstance(url, dict) else url for url in urls]
    images = [address.partition(";base64,")[2] for address in addresses]
    return {"role": message.get("role", ""), "content": text, "images": images}


def _error(error: ApiError) -> JsonObject:
    kind = _ERROR_TYPES.get(error.status, "api_error")
    return {"error": {"message": error.message, "type": kind, "param": None, "code": None}}


def _head(model: str, kind: str) -> JsonObject:
    return {
        "id": f"chatcmpl-{time.time_ns() % 1000}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": "fp_ollama",
    }


def _usage(outcome: Outcome) -> JsonObject:
    asked, said = outcome.counts["prompt_eval_count"], outcome.counts["eval_count"]
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _completion(model: str, whole: Piece, outcome: Outcome) -> JsonObject:
    message = {"role": "assistant", "content": whole.text}
    if whole.thinking:
        message["reasoning"] = whole.thinking
    choice = {"index": 0, "message": message, "finish_reason": outcome.reason}
    return {**_head(model, "chat.completion"), "choices": [choice], "usage": _usage(outcome)}


async def _events(body: JsonObject, events: AsyncGenerator[Piece | Outcome]) -> AsyncGenerator[bytes]:
    head = _head(body["model"], "chat.completion.chunk")
    try:
        async with aclosing(events):
            async for event in events:
                yield _event({**head, "choices": [_chunk(event)]})
                if isinstance(event, Outcome) and body.get("stream_options", {}).get("include_usage"):
                    yield _event({**head, "choices": [], "usage": _usage(event)})
    except ApiError as error:
        yield _event(_error(error))
    yield b"data: [DONE]\n\n"


def _chunk(event: Piece | Outcome) -> JsonObject:
    delta = {"role": "assistant", "content": "" if isinstance(event, Outcome) else event.text}
    if isinstance(event, Piece) and event.thinking:
        delta["reasoning"] = event.thinking
    return {"index": 0, "delta": delta, "finish_reason": event.reason if isinstance(event, Outcome) else None}


def _event(value: JsonObject) -> bytes:
    return b"data: " + compact(value) + b"\n\n"
