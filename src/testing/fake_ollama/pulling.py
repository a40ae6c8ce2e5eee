"""`/api/pull`: models from registries, file by file; what was left midway continues where it was."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from src.testing.fake_ollama.decoding import Struct
from src.testing.fake_ollama.errors import ApiError
from src.testing.fake_ollama.models import FakeModel, Layer
from src.testing.fake_ollama.names import DEFAULT_HOST, ModelName
from src.testing.fake_ollama.pace import Pace
from src.testing.fake_ollama.store import Store
from src.testing.fake_ollama.wire import (
    JSON,
    NDJSON,
    JsonObject,
    LineStream,
    error_answer,
    json_answer,
    ndjson,
)

PULL = Struct("PullRequest", {"model": "string", "name": "string", "stream": "bool", "insecure": "bool"})


class Registries:
    """The registries of the fake's world: the default one, and every host that a pullable model names."""

    def __init__(self, pullable: Iterable[FakeModel]) -> None:
        self._models = {ModelName.parse(model.name): model for model in pullable}
        self._hosts = {DEFAULT_HOST, *(name.host for name in self._models)}

    def find(self, name: ModelName, *, insecure: bool) -> FakeModel:
        """Returns a model; raises `ApiError` 500 where the registry is not there or lacks it."""
        if name.host not in self._hosts:
            scheme = "http" if insecure else "https"
            path = f"/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
            refusal = f"dial tcp {name.host}: connect: connection refused"
            raise ApiError(500, f'pull model manifest: Get "{scheme}://{name.host}{path}": {refusal}')
        if name not in self._models:
            raise ApiError(500, "pull model manifest: file does not exist")
        return self._models[name]


class Pulling:
    """The endpoint that fetches models."""

    def __init__(self, store: Store, registries: Registries, pace: Pace) -> None:
        self._store = store
        self._registries = registries
        self._pace = pace

    async def pull(self, request: Request) -> Response:
        body = PULL.read(await request.body())
        name = ModelName.parse(body.get("model") or body.get("name", ""))
        events = self._events(name, insecure=body.get("insecure", False))
        if body.get("stream", True):
            return LineStream(ndjson(events), NDJSON)
        try:
            async with aclosing(events):
                async for _ in events:
                    pass
        except ApiError as error:
            return error_answer(error, JSON)
        return json_answer({"status": "success"}, media_type=JSON)

    async def _events(self, name: ModelName, *, insecure: bool) -> AsyncGenerator[JsonObject]:
        yield {"status": "pulling manifest"}
        model = self._registries.find(name, insecure=insecure)
        for layer in model.layers:
            async for event in self._fetch(layer):
                yield event
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._store.put(name, model)
        for layer in model.layers:
            self._store.partial.pop(layer.digest, None)
        yield {"status": "success"}

    async def _fetch(self, layer: Layer) -> AsyncGenerator[JsonObject]:
        here, partial = self._store.has_file(layer.digest), self._store.partial
        completed = layer.size if here else partial[layer.digest]
        if completed == layer.size:
            yield _progress(layer, completed)
        while completed < layer.size:
            await asyncio.sleep(self._pace.pull_delay)
            completed = partial[layer.digest] = min(layer.size, completed + self._pace.pull_part)
            yield _progress(layer, completed)


def _progress(layer: Layer, completed: int) -> JsonObject:
    status = f"pulling {layer.digest.removeprefix('sha256:')[:12]}"
    return {"status": status, "digest": layer.digest, "total": layer.size, "completed": completed}
