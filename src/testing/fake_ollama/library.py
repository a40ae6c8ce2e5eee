"""The endpoints about models as such: list, show, create, copy, delete, files."""

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from src.testing.fake_ollama.decoding import Struct
from src.testing.fake_ollama.errors import ApiError
from src.testing.fake_ollama.models import FakeModel
from src.testing.fake_ollama.names import ModelName
from src.testing.fake_ollama.scheduler import Runner, Scheduler
from src.testing.fake_ollama.store import Store, StoredModel, source_missing
from src.testing.fake_ollama.wire import (
    NDJSON,
    NO_END,
    JsonObject,
    LineStream,
    go_time,
    json_answer,
    ndjson,
)

SHOW = Struct("ShowRequest", dict.fromkeys(("model", "name", "system", "template"), "string"))
COPY = Struct("CopyRequest", {"source": "string", "destination": "string"})
DELETE = Struct("DeleteRequest", {"model": "string", "name": "string"})
CREATE = Struct(
    "CreateRequest",
    {
        **dict.fromkeys(("model", "name", "from", "template", "system"), "string"),
        "stream": "bool",
        "parameters": "map[string]interface {}",
    },
)
_CHANGEABLE = ("template", "system", "license", "parameters")


class Library:
    """The endpoints that need no loaded model."""

    def __init__(self, store: Store, scheduler: Scheduler) -> None:
        self._store = store
        self._scheduler = scheduler

    async def tags(self, request: Request) -> Response:
        return json_answer({"models": [_listed(stored) for stored in self._store.newest_first()]})

    async def ps(self, request: Request) -> Response:
        return json_answer({"models": [_loaded(runner) for runner in self._scheduler.loaded()]})

    async def show(self, request: Request) -> Response:
        body = SHOW.read(await request.body())
        name = body.get("model") or body.get("name")
        if not name:
            raise ApiError(400, "model is required")
        return json_answer(_shown(self._store.find(name)))

    async def copy(self, request: Request) -> Response:
        body = COPY.read(await request.body())
        source, destination = body.get("source", ""), body.get("destination", "")
        ModelName.parse(source, f'source "{source}" is invalid')
        name = ModelName.parse(destination, f'destination "{destination}" is invalid')
        try:
            self._store.put(name, self._store.find(source).model)
        except ApiError as exc:
            raise source_missing(source) from exc
        return Response()

    async def delete(self, request: Request) -> Response:
        body = DELETE.read(await request.body())
        name = body.get("model") or body.get("name", "")
        ModelName.parse(name, f'name "{name}" is invalid')
        self._store.remove(name)
        return Response()

    async def create(self, request: Request) -> Response:
        body = CREATE.read(await request.body())
        name = ModelName.parse(body.get("model") or body.get("name", ""))
        if not body.get("from"):
            raise ApiError(400, "neither 'from' or 'files' was specified")
        changes: JsonObject = {key: body[key] for key in ("template", "system", "license", "parameters") if key in body}
        if isinstance(changes.get("license"), list):
            changes["license"] = "\n".join(changes["license"])
        lines = self._store.derive(self._store.find(body["from"]), name, changes)
        if not body.get("stream", True):
            return json_answer({"status": "success"})
        return LineStream(ndjson(_statuses(*lines, "writing manifest", "success")), NDJSON)

    async def has_blob(self, request: Request) -> Response:
        digest = request.path_params["digest"].replace("sha256-", "sha256:")
        if not self._store.has_file(digest):
            raise ApiError(404, f'blob "{digest}" not found')
        return Response()


async def _statuses(*lines: str) -> AsyncGenerator[JsonObject]:
    for line in lines:
        yield {"status": line}


def _listed(stored: StoredModel) -> JsonObject:
    model = stored.model
    lengths = {"context_length": model.context_length, "embedding_length": model.embedding_length}
    return {
        "name": stored.name.short,
        "model": stored.name.short,
        "modified_at": go_time(stored.modified_at),
        "size": model.size,
        "digest": model.digest,
        "details": {**model.details, **lengths},
        "capabilities": list(model.capabilities),
    }


def _loaded(runner: Runner) -> JsonObject:
    model, name = runner.stored.model, runner.stored.name.short
    return {
        "name": name,
        "model": name,
        "size": model.size + 4 * runner.context_length * model.embedding_length,
        "digest": model.digest,
        "details": {**model.details, "parent_model": ""},
        "expires_at": go_time(int(min(runner.expires_at, NO_END) * 1_000_000_000)),
        "size_vram": 0,
        "context_length": runner.context_length,
    }


def _shown(stored: StoredModel) -> JsonObject:
    model = stored.model
    texts = {
        "license": model.license,
        "modelfile": _modelfile(stored),
        "parameters": "\n".join(f"{key:<30} {value}" for key, value in _parameter_lines(model, quoted=True)),
        "template": model.template,
        "system": model.system,
    }
    return {
        **{key: text for key, text in texts.items() if text},
        "details": model.details,
        "model_info": model.model_info,
        "tensors": model.tensors,
        "capabilities": list(model.capabilities),
        "modified_at": go_time(stored.modified_at),
    }


def _parameter_lines(model: FakeModel, *, quoted: bool) -> list[tuple[str, str]]:
    """Returns a line for each value; a list has one for each of its own."""
    pairs = [
        (key, value)
        for key, given in model.parameters.items()
        for value in (given if isinstance(given, list | tuple) else [given])
    ]
    return [(key, f'"{value}"' if quoted and isinstance(value, str) else str(value)) for key, value in pairs]


def _modelfile(stored: StoredModel) -> str:
    model = stored.model
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {stored.name.short}\n",
        f"FROM /models/blobs/{model.weights.digest.replace(':', '-')}",
        f"TEMPLATE {model.template}" if model.template else "",
        f"SYSTEM {model.system}" if model.system else "",
        *(f"PARAMETER {key} {value}" for key, value in _parameter_lines(model, quoted=False)),
        f"LICENSE {model.license}" if model.license else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"
