"""HTTP to an Ollama server: foreign errors become ours here, and nowhere else."""

import base64
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import orjson

from src.core.errors import (
    ConfigurationError,
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
from src.inference.engines.ollama.pool import ConnectionPool, Exchange
from src.inference.types import JsonObject


class OllamaClient:
    """One server's connections, used on one event loop. `timeout` in seconds: how long the server may be silent."""

    def __init__(self, api_base: str, *, timeout: float, verify_ssl: bool) -> None:
        self.api_base = api_base
        self._timeout = timeout
        try:
            host, port, self._path, self._headers = _address(api_base)
        except ValueError as exc:
            raise ConfigurationError(f"ollama.api_base '{api_base}' is no address: {exc}") from exc
        tls = _trust(verify_ssl) if urlsplit(api_base).scheme == "https" else None
        self._pool = ConnectionPool(host, port, tls)

    async def close(self) -> None:
        """Closes the connections."""
        await self._pool.close()

    async def get(self, path: str, *, timeout: float | None = None) -> JsonObject:
        """Returns the JSON answer to a GET."""
        return await self._whole(self._exchange("GET", path, b"", timeout or self._timeout))

    async def post(self, path: str, body: JsonObject) -> JsonObject:
        """Returns the JSON answer to a POST; closing it (by cancelling) makes Ollama stop generating."""
        return await self._whole(self._exchange("POST", path, encoded(body), self._timeout))

    async def lines(self, path: str, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """Yields the JSON lines of a streamed answer until the one that says `done`; an `error` line is raised.

        Closing it makes Ollama stop generating.
        """
        with self._translated():
            async with self._exchange("POST", path, encoded(body), self._timeout) as answer:
                if answer.status >= 400:
                    parsed(answer.status, await answer.body())
                while lines := await answer.lines():
                    for text in lines:
                        line = parsed(200, text)
                        if line.get("done"):
                            await answer.finish()
                            yield line
                            return
                        yield line

    def _exchange(self, method: str, path: str, body: bytes, seconds: float) -> Exchange:
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n"
        return Exchange(self._pool, head.encode("ascii"), body, seconds)

    async def _whole(self, exchange: Exchange) -> JsonObject:
        with self._translated():
            async with exchange as answer:
                return parsed(answer.status, await answer.body())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as exc:
            raise translated(exc, self.api_base) from exc


def _address(api_base: str) -> tuple[str, int, str, str]:
    """Returns host, port, the path in front of every other, and the headers that are always the same."""
    parts = urlsplit(api_base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be http://host:port or https://host:port")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    user, _, place = parts.netloc.rpartition("@")
    headers = f"Host: {place.encode('idna').decode('ascii')}\r\nUser-Agent: aiml\r\nContent-Type: application/json\r\n"
    if user:
        headers += f"Authorization: Basic {base64.b64encode(unquote(user).encode()).decode('ascii')}\r\n"
    return parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"), headers


def _trust(verify_ssl: bool) -> ssl.SSLContext:
    # The same certificates as for every other call to the server.
    context = httpx.create_ssl_context(verify=verify_ssl, trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


def encoded(body: JsonObject) -> bytes:
    """Returns a request's body as JSON; raises `InvalidInputError` for what JSON cannot hold."""
    try:
        return orjson.dumps(body)
    except TypeError as exc:
        raise InvalidInputError(f"Invalid input format: the request cannot be written as JSON: {exc}") from exc


def translated(exc: httpx.HTTPError, api_base: str) -> PlatformError:
    """Returns our error for httpx's, most specific first."""
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            return EngineUnavailableError(
                f"The certificate of Ollama server at {api_base} cannot be trusted: {exc}. "
                "ollama.verify_ssl: false in engines_config.yaml leaves the check out.",
                details={"api_base": api_base},
            )
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
    return parsed(response.status_code, response.content)


def parsed(status: int, content: bytes) -> JsonObject:
    """Returns the JSON body of an answer, or raises what its status and `error` text mean."""
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if status < 300 and isinstance(body, dict):
        return raise_error_line(body)
    text = body.get("error") if isinstance(body, dict) else content.decode("utf-8", "replace")[:300]
    said = str(text or httpx.codes.get_reason_phrase(status))
    if status < 400:
        raise EngineError(f"Ollama: what answers is no Ollama server; it says {status} {said}")
    raise error_for(status, said)


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
