"""Plain HTTP to an Ollama server: foreign errors become ours here, and nowhere else."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from src.core.errors import (
    EngineError,
    EngineUnavailableError,
    InsufficientMemoryError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
    QueueFullError,
    WorkerDiedError,
)
from src.core.sources.ollama import unreachable
from src.inference.types import JsonObject

# A connection that cannot be made should be told at once; an answer may take as long as it may.
CONNECT_SECONDS = 5.0


class OllamaClient:
    """One server's connections, used on one event loop."""

    def __init__(self, api_base: str, *, timeout: float, verify_ssl: bool) -> None:
        self.api_base = api_base
        self._http = httpx.AsyncClient(
            base_url=api_base,
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            verify=verify_ssl,
            trust_env=False,
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=32),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def get(self, path: str, *, timeout: float | None = None) -> JsonObject:
        """Returns the JSON answer to a GET."""
        with_timeout = {} if timeout is None else {"timeout": timeout}
        async with self._translated():
            return checked(await self._http.get(path, **with_timeout))  # type: ignore[arg-type]

    async def post(self, path: str, body: JsonObject) -> JsonObject:
        """Returns the JSON answer to a POST; closing it (by cancelling) makes Ollama stop generating."""
        async with self._translated():
            return checked(await self._http.post(path, json=body))

    async def lines(self, path: str, body: JsonObject) -> AsyncIterator[JsonObject]:
        """Yields the JSON lines of a streamed answer; an `error` line is raised."""
        async with self._translated(), self._http.stream("POST", path, json=body) as response:
            if response.status_code >= 400:
                await response.aread()
                checked(response)
            async for line in response.aiter_lines():
                if line:
                    yield raise_error_line(json.loads(line))

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as exc:
            raise translated(exc, self.api_base) from exc


def translated(exc: httpx.HTTPError, api_base: str) -> PlatformError:
    """Returns our error for httpx's, most specific first."""
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return unreachable(api_base)
    if isinstance(exc, httpx.TimeoutException):
        return EngineUnavailableError(
            f"Ollama server at {api_base} did not answer in time; raise ollama.timeout in engines_config.yaml "
            "if the model needs longer",
            details={"api_base": api_base},
        )
    if isinstance(exc, httpx.TransportError):
        return WorkerDiedError(f"The connection to Ollama server at {api_base} broke: {exc or type(exc).__name__}")
    return EngineError(f"Ollama server at {api_base} gave an answer that cannot be read: {exc}")


def checked(response: httpx.Response) -> JsonObject:
    """Returns the JSON body, or raises what its status and `error` text mean."""
    try:
        body: Any = response.json()
    except ValueError:
        body = {"error": response.text[:300]}
    if response.status_code < 400 and isinstance(body, dict):
        return raise_error_line(body)
    text = body.get("error") if isinstance(body, dict) else None
    raise error_for(response.status_code, str(text or response.reason_phrase))


def raise_error_line(body: JsonObject) -> JsonObject:
    """Returns a line unless it is an error: Ollama reports failures after a 200 that way."""
    if "error" in body:
        raise error_for(500, str(body["error"]))
    return body


def error_for(status: int, text: str) -> PlatformError:
    """Returns the error that an Ollama status and text stand for."""
    message = f"Ollama: {text}"
    lowered = text.lower()
    if status == 404:
        return ModelNotFoundError(message)
    if status == 503:
        return QueueFullError(message)
    if "memory" in lowered and ("require" in lowered or "out of" in lowered or "insufficient" in lowered):
        return InsufficientMemoryError(f"{message}. A smaller or quantized model, or a smaller 'num_ctx', needs less.")
    if "unexpected eof" in lowered or ("runner" in lowered and "terminated" in lowered):
        return WorkerDiedError(message)
    if status < 500 or "must be of type" in text:
        return InvalidInputError(message)
    return EngineError(message)
