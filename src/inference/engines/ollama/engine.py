"""OllamaEngine: text generation on an Ollama server, about pictures too, awaited on the event loop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from src.core.config import load_settings
from src.core.errors import EngineUnavailableError, InvalidInputError, ModelNotFoundError, PlatformError
from src.inference.engines.base import BaseEngine
from src.inference.engines.ollama import client as http
from src.inference.engines.ollama import translation
from src.inference.engines.ollama.catalogue import OllamaCatalogue, full_name, shown_capabilities
from src.inference.options import OllamaOptions
from src.inference.types import JsonObject, ServableModel

logger = logging.getLogger(__name__)


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
        self._connection: tuple[asyncio.AbstractEventLoop, http.OllamaClient, OllamaCatalogue] | None = None
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def ainfer(self, model: ServableModel, inputs: Any, options: JsonObject) -> Any:
        """Returns Ollama's answer to a prompt or to messages, with the model's digest."""
        client, catalogue = self._connected()
        name = ollama_name(model)
        row = await self._present(model, name)
        if translation.shows_pictures(inputs):
            check_vision(model.name, name, await catalogue.capabilities(row))
        raw = await self._ask(client, model, name, inputs, options)
        # Ollama's tags move: the digest is read beside the answer, not remembered from registration.
        raw["digest"] = _prefixed(row.get("digest"))
        raw["engine_version"] = catalogue.version
        raw["warnings"] = [
            *raw.get("warnings", []),
            *translation.option_warnings(options),
            *_drift(model, name, row.get("digest")),
        ]
        return raw

    async def aready(self, model: ServableModel) -> None:
        """Pulls a registered model that the server lacks, where `auto_pull` allows it."""
        await self._present(model, ollama_name(model))

    async def lists(self, name: str) -> bool:
        """Whether the server has a model under this name; raises `EngineUnavailableError` if it cannot be asked."""
        return await self._connected()[1].find(name) is not None

    async def listed(self) -> list[str]:
        """Returns the names that the server has."""
        return await self._connected()[1].names()

    async def digest(self, name: str) -> str | None:
        """Returns the digest that Ollama reports for a model; None when it lacks it."""
        row = await self._connected()[1].find(name)
        return _prefixed(row.get("digest")) if row else None

    async def ping(self) -> None:
        """Raises `EngineUnavailableError` unless the server answers."""
        await self._connected()[0].get("/api/version", timeout=3.0)

    async def aclose(self) -> None:
        """Closes the connections and stops pulls under way."""
        for task in self._pulls.values():
            task.cancel()
        if self._connection is not None:
            await self._connection[1].close()
            self._connection = None

    def load_model(self, model_name: str, **kwargs: Any) -> str:
        """Returns the name that Ollama knows the model by; Ollama itself loads it when asked."""
        tags: Mapping[str, str] = kwargs.get("tags") or {}
        return tags.get("ollama_model_name") or model_name

    def infer(self, model: str, inputs: Any, options: JsonObject) -> Any:
        """Like `ainfer`, for callers without an event loop."""
        path, body = translation.request_body(model, inputs, options)
        base = str(self.config["api_base"])
        timeout = httpx.Timeout(self.config["timeout"], connect=http.CONNECT_SECONDS)
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
        return self._connection[2].version if self._connection else None

    def _connected(self) -> tuple[http.OllamaClient, OllamaCatalogue]:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection[0] is not loop:
            client = http.OllamaClient(
                self.config["api_base"], timeout=self.config["timeout"], verify_ssl=self.config["verify_ssl"]
            )
            self._connection = (loop, client, OllamaCatalogue(client))
        return self._connection[1], self._connection[2]

    async def _present(self, model: ServableModel, name: str) -> JsonObject:
        catalogue = self._connected()[1]
        row = await catalogue.find(name)
        if row is None:
            if model.registered is None or not self.config["auto_pull"]:
                raise self._missing(model, name, await catalogue.names())
            await self._pull(name)
            row = await catalogue.find(name)
            if row is None:
                raise self._missing(model, name, await catalogue.names())
        return row

    async def _ask(
        self, client: http.OllamaClient, model: ServableModel, name: str, inputs: Any, options: JsonObject
    ) -> JsonObject:
        path, body = translation.request_body(name, inputs, options)
        # Ollama answers with one sequence; several are asked for one by one, side by side.
        bodies = translation.repeated(body, options.get("num_return_sequences", 1))
        try:
            answers = await _all(client.post(path, each) for each in bodies)
        except ModelNotFoundError:
            # Deleted behind our back since the last look.
            self._connected()[1].forget()
            await self._present(model, name)
            answers = await _all(client.post(path, each) for each in bodies)
        num_ctx = body["options"]["num_ctx"]
        return translation.together([translation.raw_answer(answer, num_ctx) for answer in answers])

    async def _pull(self, name: str) -> None:
        task = self._pulls.get(name)
        if task is None or task.done():
            task = self._pulls[name] = asyncio.create_task(self._pull_whole(name))
        # A caller that gives up does not stop the pull: the next one finds it further on.
        await asyncio.shield(task)

    async def _pull_whole(self, name: str) -> None:
        client, catalogue = self._connected()
        logger.info("pulling %s from Ollama's registry", name)
        try:
            async for line in client.lines("/api/pull", {"model": name}):
                logger.debug("pull %s: %s", name, line.get("status"))
        except EngineUnavailableError:
            raise
        except PlatformError as exc:
            raise ModelNotFoundError(
                f"Ollama at {self.config['api_base']} lacks '{name}' and could not pull it: {exc.message}",
                details={"ollama_model": name},
            ) from exc
        catalogue.forget()

    def _missing(self, model: ServableModel, name: str, has: list[str]) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"Model '{model.name}' needs '{name}', which Ollama at {self.config['api_base']} does not have. "
            f"Fetch it: ollama pull {name}"
            + ("" if self.config["auto_pull"] else " (ollama.auto_pull is off in engines_config.yaml)"),
            details={"ollama_model": name, "ollama_has": has[:50]},
        )


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
