"""`/api/generate`, `/api/chat`, `/api/embed` and `/api/embeddings`."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from hashlib import sha256
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from src.testing.fake_ollama.asks import Ask, Outcome, Piece, Turn
from src.testing.fake_ollama.decoding import Struct, image_bytes, seconds
from src.testing.fake_ollama.errors import ApiError
from src.testing.fake_ollama.generation import Generator
from src.testing.fake_ollama.options import Options
from src.testing.fake_ollama.store import Store, StoredModel
from src.testing.fake_ollama.text import unit
from src.testing.fake_ollama.wire import (
    NDJSON,
    JsonObject,
    LineStream,
    go_time,
    json_answer,
    ndjson,
    started,
)

_SHARED = {"model": "string", "stream": "bool", "options": "map[string]interface {}"}
GENERATE = Struct(
    "GenerateRequest",
    {
        **_SHARED,
        **dict.fromkeys(("prompt", "suffix", "system", "template"), "string"),
        "context": "[]int",
        "raw": "bool",
        "images": "[]api.ImageData",
    },
)
CHAT = Struct("ChatRequest", {**_SHARED, "messages": "[]api.Message", "tools": "[]api.Tool"})
# The Go code reads a message through a type of this name.
MESSAGE = Struct("Alias", {"role": "string", "content": "string", "images": "[]api.ImageData"})
EMBED = Struct("EmbedRequest", {**_SHARED, "truncate": "bool", "dimensions": "int"})
EMBEDDINGS = Struct("EmbeddingRequest", {**_SHARED, "prompt": "string"})

Part = Callable[[Piece], JsonObject]


class Completions:
    """The endpoints that need a loaded model."""

    def __init__(self, store: Store, generator: Generator) -> None:
        self._store = store
        self._generator = generator

    async def generate(self, request: Request) -> Response:
        body = GENERATE.read(await request.body())
        stored, keep_alive = self._store.find(body.get("model", "")), seconds(body.get("keep_alive"))
        if not body.get("prompt") and keep_alive == 0:
            return self._unload(body["model"], stored, response_part)
        raw = body.get("raw", False)
        if raw and any(body.get(name) for name in ("template", "system", "context")):
            raise ApiError(400, "raw mode does not support template, system, or context")
        ask = make_ask(stored, generate_turns(stored, body), body, "generate")
        if not body.get("prompt"):
            return await self._load(body["model"], ask, response_part)
        return await self._answer(body, ask, response_part, with_context=not raw)

    async def chat(self, request: Request) -> Response:
        body = CHAT.read(await request.body())
        stored, keep_alive = self._store.find(body.get("model", "")), seconds(body.get("keep_alive"))
        messages = [MESSAGE.check(message) for message in body.get("messages", [])]
        if not messages and keep_alive == 0:
            return self._unload(body["model"], stored, message_part)
        if body.get("tools") and "tools" not in stored.model.capabilities:
            raise ApiError(400, f"{stored.name.full} does not support tools")
        ask = make_ask(stored, chat_turns(stored, messages), body, "chat")
        if not messages:
            return await self._load(body["model"], ask, message_part)
        return await self._answer(body, ask, message_part)

    async def embed(self, request: Request) -> Response:
        body = EMBED.read(await request.body())
        texts = body.get("input", [])
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ApiError(400, "invalid input type")
        ask = self._embed_ask(body, texts)
        if body.get("truncate") is False and any(1 + turn.tokens > ask.context_length for turn in ask.turns):
            raise ApiError(400, "the input length exceeds the context length")
        vectors, counts = await self._generator.embed(ask, body.get("dimensions"))
        counts = counts if texts else {}
        return json_answer({"model": body["model"], "embeddings": [unit(v) for v in vectors], **counts})

    async def embeddings(self, request: Request) -> Response:
        body = EMBEDDINGS.read(await request.body())
        text = body.get("prompt", "")
        vectors, _ = await self._generator.embed(self._embed_ask(body, [text] if text else []))
        return json_answer({"embedding": vectors[0] if vectors else []})

    def _embed_ask(self, body: JsonObject, texts: list[str]) -> Ask:
        stored = self._store.find(body.get("model", ""))
        options = Options.resolve(stored.model.parameters, body.get("options", {}))
        turns = tuple(Turn("input", text) for text in texts)
        return Ask(stored, turns, options, seconds(body.get("keep_alive")))

    def _unload(self, model: str, stored: StoredModel, part: Part) -> Response:
        self._generator.scheduler.unload(stored.name)
        return json_answer(_line(model, part(Piece("")), {"done": True, "done_reason": "unload"}))

    async def _load(self, model: str, ask: Ask, part: Part) -> Response:
        await self._generator.load(ask)
        return json_answer(_line(model, part(Piece("")), {"done": True, "done_reason": "load"}))

    async def _answer(self, body: JsonObject, ask: Ask, part: Part, *, with_context: bool = False) -> Response:
        events = await started(self._generator.answer(ask))
        if body.get("stream", True):
            return LineStream(ndjson(_lines(body["model"], events, part, with_context)), NDJSON)
        whole, outcome = await collect(events)
        return json_answer(_line(body["model"], part(whole), _end(outcome, with_context)))


def make_ask(stored: StoredModel, turns: tuple[Turn, ...], body: JsonObject, verb: str) -> Ask:
    """Checks what the model can and the options; raises `ApiError`."""
    can, model = stored.model.capabilities, body["model"]
    if "completion" not in can:
        raise ApiError(400, f'"{model}" does not support {verb}')
    if body.get("suffix") and "insert" not in can:
        raise ApiError(400, f"{stored.name.full} does not support insert")
    think = body.get("think", "thinking" in can)
    if think and "thinking" not in can:
        raise ApiError(400, f'"{model}" does not support thinking')
    form = body.get("format") or None
    if form is not None and form != "json" and not isinstance(form, dict):
        raise ApiError(500, f'invalid format: {form!r}; expected "json" or a valid JSON Schema object')
    options = Options.resolve(stored.model.parameters, body.get("options", {}))
    extra = {name: body[name] for name in ("suffix", "template", "context", "tools") if body.get(name)}
    return Ask(stored, turns, options, seconds(body.get("keep_alive")), form, bool(think), extra)


def generate_turns(stored: StoredModel, body: JsonObject) -> tuple[Turn, ...]:
    """Returns the prompt of `/api/generate` as messages; a raw one has no system prompt."""
    prompt = Turn("user", body.get("prompt", ""), _seen(stored, body.get("images", [])))
    system = body.get("system", stored.model.system)
    return (Turn("system", system), prompt) if system and not body.get("raw") else (prompt,)


def chat_turns(stored: StoredModel, messages: list[JsonObject]) -> tuple[Turn, ...]:
    """Returns the messages of a chat, under the model's system prompt unless they begin with their own."""
    turns = tuple(
        Turn(message.get("role", ""), message.get("content", ""), _seen(stored, message.get("images", [])))
        for message in messages
    )
    own_system = not stored.model.system or (turns and turns[0].role == "system")
    return turns if own_system else (Turn("system", stored.model.system), *turns)


def response_part(piece: Piece) -> JsonObject:
    """Returns what a line of `/api/generate` says."""
    return {"response": piece.text, **({"thinking": piece.thinking} if piece.thinking else {})}


def message_part(piece: Piece) -> JsonObject:
    """Returns what a line of `/api/chat` says."""
    thinking = {"thinking": piece.thinking} if piece.thinking else {}
    return {"message": {"role": "assistant", "content": piece.text, **thinking}}


async def collect(events: AsyncGenerator[Piece | Outcome]) -> tuple[Piece, Outcome]:
    """Waits for a whole answer."""
    text = thinking = ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Outcome):
                return Piece(text, thinking), event
            text, thinking = text + event.text, thinking + event.thinking
    raise RuntimeError("a generation ended without an outcome")


async def _lines(
    model: str, events: AsyncGenerator[Piece | Outcome], part: Part, with_context: bool
) -> AsyncGenerator[JsonObject]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Outcome):
                yield _line(model, part(Piece("")), _end(event, with_context))
            else:
                yield _line(model, part(event), {"done": False})


def _line(model: str, part: JsonObject, end: JsonObject) -> JsonObject:
    return {"model": model, "created_at": go_time(), **part, **end}


def _end(outcome: Outcome, with_context: bool) -> JsonObject:
    context = {"context": outcome.context} if with_context else {}
    return {"done": True, "done_reason": outcome.reason, **context, **outcome.counts}


def _seen(stored: StoredModel, images: list[Any]) -> tuple[str, ...]:
    """Returns the digests of images; a model that cannot see does not, in silence."""
    digests = tuple(sha256(image).hexdigest() for image in image_bytes(images))
    return digests if "vision" in stored.model.capabilities else ()
