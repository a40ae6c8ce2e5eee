"""What the Ollama server has: names, digests and its version, remembered for a few seconds."""

import asyncio
import time
from typing import Any

from src.core.errors import PlatformError
from src.inference.engines.ollama.client import OllamaClient
from src.inference.types import JsonObject

FRESH_SECONDS = 5.0


def full_name(name: str) -> str:
    """Returns a model name with its tag; Ollama's default tag is `latest`."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


class OllamaCatalogue:
    """The server's models by full name. Stale entries are renewed behind the request that finds them so."""

    def __init__(self, client: OllamaClient) -> None:
        self._client = client
        self._models: dict[str, JsonObject] = {}
        self._version: str | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._capabilities: dict[str, frozenset[str]] = {}

    async def find(self, name: str) -> JsonObject | None:
        """Returns what `/api/tags` says of a model; None when the server lacks it. Asks again before saying so."""
        wanted = full_name(name)
        found = self._models.get(wanted)
        if found is None:
            await self.read()
            return self._models.get(wanted)
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            self._read_behind()
        return found

    async def names(self) -> list[str]:
        """Returns the names that the server has, as of the last look."""
        return sorted(self._models)

    async def capabilities(self, row: JsonObject) -> frozenset[str]:
        """Returns what a model of `find` can: `completion`, `vision` … The server is asked once for each digest."""
        if isinstance(row.get("capabilities"), list):
            return frozenset(map(str, row["capabilities"]))
        # Older servers do not list them.
        digest = str(row.get("digest"))
        if digest not in self._capabilities:
            shown = await self._client.post("/api/show", {"model": row.get("name") or row.get("model")})
            self._capabilities[digest] = shown_capabilities(shown)
        return self._capabilities[digest]

    @property
    def version(self) -> str | None:
        """The server's version, once known."""
        return self._version

    async def read(self) -> None:
        """Asks the server, once for everybody who wants to know at the same time."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    async def read_anew(self) -> None:
        """Asks the server, not earlier than now."""
        if self._reading is not None and not self._reading.done():
            await asyncio.wait({self._reading})
        await self.read()

    def forget(self) -> None:
        """Makes the next look ask the server."""
        self._models.clear()

    def _read_behind(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_seen)

    async def _read(self) -> None:
        tags, version = await asyncio.gather(
            self._client.get("/api/tags", timeout=10.0), self._client.get("/api/version", timeout=10.0)
        )
        rows: list[Any] = tags.get("models") or []
        self._models = {str(row.get("name") or row.get("model")): row for row in rows}
        self._version = version.get("version")
        self._read_at = time.monotonic()


def shown_capabilities(shown: JsonObject) -> frozenset[str]:
    """Returns what a model can by `/api/show`; an old server only tells the projector of one that can see."""
    listed = shown.get("capabilities")
    if isinstance(listed, list):
        return frozenset(map(str, listed))
    return frozenset({"completion", "vision"} if shown.get("projector_info") else {"completion"})


def _seen(task: asyncio.Task[None]) -> None:
    # The request that finds the server gone says so; a look behind the scenes stays quiet.
    if not task.cancelled() and isinstance(task.exception(), PlatformError):
        return
