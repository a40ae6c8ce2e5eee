"""What one event loop holds of an Ollama server: its connections, what the server has, pulls under way."""

import asyncio
import logging
from contextlib import aclosing

from src.core.errors import EngineUnavailableError, ModelNotFoundError, PlatformError
from src.inference.engines.ollama.catalogue import OllamaCatalogue
from src.inference.engines.ollama.client import OllamaClient
from src.inference.types import JsonObject, ServableModel

logger = logging.getLogger(__name__)


class OllamaSession:
    """One server, as seen from one event loop. `config` is the engine's."""

    def __init__(self, config: JsonObject) -> None:
        self._api_base, self._auto_pull = str(config["api_base"]), bool(config["auto_pull"])
        self.client = OllamaClient(self._api_base, timeout=config["timeout"], verify_ssl=config["verify_ssl"])
        self.catalogue = OllamaCatalogue(self.client)
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def present(self, model: ServableModel, name: str, *, anew: bool = False) -> JsonObject:
        """Returns what the server says of a model, by its name there; pulls a registered one where that is allowed.

        `anew`: the server has just said that it lacks the model. Raises `ModelNotFoundError`.
        """
        if anew:
            self.catalogue.forget()
        row = await self.catalogue.find(name)
        if row is None:
            if model.registered is None or not self._auto_pull:
                raise self._missing(model, name, await self.catalogue.names())
            await self._pull(name)
            row = await self.catalogue.find(name)
            if row is None:
                raise self._missing(model, name, await self.catalogue.names())
        return row

    async def close(self) -> None:
        """Closes the connections and stops pulls under way."""
        for task in self._pulls.values():
            task.cancel()
        await self.client.close()

    async def _pull(self, name: str) -> None:
        task = self._pulls.get(name)
        if task is None or task.done():
            task = self._pulls[name] = asyncio.create_task(self._pull_whole(name))
        # A caller that gives up does not stop the pull: the next one finds it further on.
        await asyncio.shield(task)

    async def _pull_whole(self, name: str) -> None:
        logger.info("pulling %s from Ollama's registry", name)
        try:
            async with aclosing(self.client.lines("/api/pull", {"model": name})) as lines:
                async for line in lines:
                    logger.debug("pull %s: %s", name, line.get("status"))
        except EngineUnavailableError:
            raise
        except PlatformError as exc:
            raise ModelNotFoundError(
                f"Ollama at {self._api_base} lacks '{name}' and could not pull it: {exc.message}",
                details={"ollama_model": name},
            ) from exc
        self.catalogue.forget()

    def _missing(self, model: ServableModel, name: str, has: list[str]) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"Model '{model.name}' needs '{name}', which Ollama at {self._api_base} does not have. "
            f"Fetch it: ollama pull {name}"
            + ("" if self._auto_pull else " (ollama.auto_pull is off in engines_config.yaml)"),
            details={"ollama_model": name, "ollama_has": has[:50]},
        )
