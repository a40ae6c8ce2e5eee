"""OllamaEngine: text generation on an Ollama server, about pictures too, awaited on the event loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from src.core.config import load_settings
from src.core.errors import InvalidInputError, ModelNotFoundError
from src.inference.engines.base import BaseEngine, Delta
from src.inference.engines.ollama import client as http
from src.inference.engines.ollama import translation
from src.inference.engines.ollama.catalogue import full_name, shown_capabilities
from src.inference.engines.ollama.pool import CONNECT_SECONDS
from src.inference.engines.ollama.session import OllamaSession
from src.inference.options import OllamaOptions
from src.inference.types import JsonObject, ServableModel


class OllamaEngine(BaseEngine):
    """Serves registered Ollama models, and those that Ollama has without anybody registering them.

    `config`: `api_base`, `timeout` (seconds), `auto_pull`, `verify_ssl`; what is left out comes from
    the settings.
    """

    name = "ollama"
    is_network = True
    options_schema = OllamaOptions

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__({**load_settings().ollama.model_dump(), **(config or {})})
        self.supported_tasks = ["text-generation", "vlm"]
        self.is_initialized = True
        self._sessions: dict[asyncio.AbstractEventLoop, OllamaSession] = {}

    async def ainfer(self, model: ServableModel, inputs: Any, options: JsonObject) -> Any:
        """Returns Ollama's answer to a prompt or to messages, with the model's digest."""
        session, name = self._session(), ollama_name(model)
        row = await self._able(session, model, inputs)
        path, body = translation.request_body(name, inputs, options)
        # Ollama answers with one sequence; several are asked for one by one, side by side.
        bodies = translation.repeated(body, options.get("num_return_sequences", 1))
        try:
            answers = await _all(session.client.post(path, each) for each in bodies)
        except ModelNotFoundError:
            # Deleted behind our back since the last look.
            row = await session.present(model, name, anew=True)
            answers = await _all(session.client.post(path, each) for each in bodies)
        num_ctx = body["options"]["num_ctx"]
        raw = translation.together([translation.raw_answer(answer, num_ctx) for answer in answers])
        return self._with_facts(raw, session, model, row, options)

    async def astream(self, model: ServableModel, inputs: Any, options: JsonObject) -> AsyncGenerator[Any]:
        """Yields `Delta`s of the answer's text as Ollama generates it, and last what `ainfer` would return.

        Closing it stops Ollama's generation. Several sequences come whole, at the end.
        """
        if options.get("num_return_sequences", 1) > 1:
            yield await self.ainfer(model, inputs, options)
            return
        session, name = self._session(), ollama_name(model)
        row = await self._able(session, model, inputs)
        path, body = translation.request_body(name, inputs, options, stream=True)
        for last_try in (False, True):
            answer = translation.StreamedAnswer()
            try:
                async with aclosing(session.client.lines(path, body)) as lines:
                    async for line in lines:
                        if text := answer.add(line):
                            yield Delta(text)
                break
            except ModelNotFoundError:
                # Deleted since the last look: it is the answer's status that says so, nothing has come yet.
                if last_try:
                    raise
                row = await session.present(model, name, anew=True)
        raw = translation.raw_answer(answer.whole(), body["options"]["num_ctx"])
        yield self._with_facts(raw, session, model, row, options)

    async def aready(self, model: ServableModel) -> None:
        """Pulls a registered model that the server lacks, where `auto_pull` allows it."""
        await self._session().present(model, ollama_name(model))

    async def lists(self, name: str) -> bool:
        """Whether the server has a model under this name; raises `EngineUnavailableError` if it cannot be asked."""
        return await self._session().catalogue.find(name) is not None

    async def listed(self) -> list[str]:
        """Returns the names that the server has."""
        return await self._session().catalogue.names()

    async def digest(self, name: str) -> str | None:
        """Returns the digest that Ollama reports for a model; None when it lacks it."""
        row = await self._session().catalogue.find(name)
        return _prefixed(row.get("digest")) if row else None

    async def content_digest(self, model: ServableModel) -> str | None:
        """Returns the digest that Ollama has under a model's name now, asked for anew; None when it lacks it."""
        catalogue = self._session().catalogue
        await catalogue.read_anew()
        return await self.digest(ollama_name(model))

    async def ping(self) -> None:
        """Raises `EngineUnavailableError` unless the server answers."""
        await self._session().client.get("/api/version", timeout=3.0)

    async def aclose(self) -> None:
        """Closes the connections of the running loop and stops its pulls under way."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def load_model(self, model_name: str, **kwargs: Any) -> str:
        """Returns the name that Ollama knows the model by; Ollama itself loads it when asked."""
        tags: Mapping[str, str] = kwargs.get("tags") or {}
        return tags.get("ollama_model_name") or model_name

    def infer(self, model: str, inputs: Any, options: JsonObject) -> Any:
        """Like `ainfer`, for callers without an event loop."""
        path, body = translation.request_body(model, inputs, options)
        base = str(self.config["api_base"])
        timeout = httpx.Timeout(self.config["timeout"], connect=CONNECT_SECONDS)
        try:
            with httpx.Client(verify=self.config["verify_ssl"], timeout=timeout, trust_env=False) as client:
                if translation.shows_pictures(inputs):
                    shown = http.checked(client.post(base + "/api/show", json={"model": model}))
                    check_vision(model, model, shown_capabilities(shown))
                answer = http.checked(client.post(base + path, json=body))
        except httpx.HTTPError as exc:
            raise http.translated(exc, base) from exc
        return translation.raw_answer(answer, body["options"]["num_ctx"])

    def version(self) -> str | None:
        """Returns the server's version, once it was asked for anything."""
        known = (session.catalogue.version for session in list(self._sessions.values()))
        return next(filter(None, known), None)

    def _session(self) -> OllamaSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            for ended in [known for known in list(self._sessions) if known.is_closed()]:
                self._sessions.pop(ended, None)  # its connections ended with it
            session = self._sessions[loop] = OllamaSession(self.config)
        return session

    async def _able(self, session: OllamaSession, model: ServableModel, inputs: Any) -> JsonObject:
        """Returns what the server says of a model that it has; raises where the model cannot take these inputs."""
        name = ollama_name(model)
        row = await session.present(model, name)
        if translation.shows_pictures(inputs):
            check_vision(model.name, name, await session.catalogue.capabilities(row))
        return row

    def _with_facts(
        self, raw: JsonObject, session: OllamaSession, model: ServableModel, row: JsonObject, options: JsonObject
    ) -> JsonObject:
        # Ollama's tags move: the digest is read beside the answer, not remembered from registration.
        raw["digest"] = _prefixed(row.get("digest"))
        raw["engine_version"] = session.catalogue.version
        raw["warnings"] = [
            *raw.get("warnings", []),
            *translation.option_warnings(options),
            *_drift(model, ollama_name(model), row.get("digest")),
        ]
        return raw


async def _all(requests: Iterable[Coroutine[Any, Any, JsonObject]]) -> list[JsonObject]:
    """Awaits requests side by side; the first failure stops the others."""
    first, *others = requests
    if not others:
        return [await first]
    async with _first_failure(), asyncio.TaskGroup() as group:
        tasks = [group.create_task(request) for request in (first, *others)]
    return [task.result() for task in tasks]


@asynccontextmanager
async def _first_failure() -> AsyncIterator[None]:
    try:
        yield
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def ollama_name(model: ServableModel) -> str:
    """Returns the name that Ollama knows a model by."""
    return model.tags.get("ollama_model_name") or model.name


def check_vision(name: str, ollama_model: str, capabilities: frozenset[str]) -> None:
    """Raises `InvalidInputError` for a model that cannot see; Ollama itself would drop the pictures in silence."""
    if "vision" not in capabilities:
        raise InvalidInputError(
            f"Model '{name}' ('{ollama_model}' in Ollama) lacks the capability 'vision', which task 'vlm' needs; "
            f"it has: {', '.join(sorted(capabilities)) or 'none'}",
            details={"missing_capability": "vision", "capabilities": sorted(capabilities)},
        )


def _prefixed(digest: str | None) -> str | None:
    return digest if not digest or digest.startswith("sha256:") else f"sha256:{digest}"


def _drift(model: ServableModel, name: str, digest: str | None) -> list[str]:
    version = model.registered.version if model.registered else None
    registered = model.tags.get("model_digest")
    if not registered or not digest or registered.removeprefix("sha256:") == digest.removeprefix("sha256:"):
        return []
    return [
        f"'{full_name(name)}' has moved since version {version} was registered: Ollama has {digest[:19]}…, "
        f"registered was {registered[:19]}…; register it again to name what is served"
    ]
