"""Ollama as a source of models: what it has, what it knows about a model, and pulls. Everything blocks.

On the official client, which is imported on first use.
"""

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from src.core.errors import (
    EngineError,
    EngineUnavailableError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
    StoreUnavailableError,
)
from src.core.sources.human import human_size, human_time
from src.core.sources.ollama_parameters import parameter_billions, stated_parameters
from src.core.stores.base import Progress
from src.core.stores.hashing import in_parallel

if TYPE_CHECKING:
    from ollama import Client, ListResponse, ProgressResponse, ShowResponse

JsonObject = dict[str, Any]

_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 30.0
_PULL_SECONDS = 1800.0  # without a line: the digest of a large model is verified in silence
_DEFAULT_PLACES = ("registry.ollama.ai/", "library/")
_REGISTRY_AWAY = ("dial tcp", "no such host", "connection refused", "i/o timeout", "tls:", "connection reset")

__all__ = ["OllamaSource", "full_name", "parameter_billions", "unreachable"]


class OllamaSource:
    """One Ollama server. `timeout` is in seconds, for one answer.

    Raises `EngineUnavailableError` where the server cannot be reached, `ModelNotFoundError` for a model that it
    lacks, `EngineError` where it fails.
    """

    def __init__(self, api_base: str, *, timeout: float = 300.0, verify_ssl: bool = True) -> None:
        self._api_base = api_base
        self._timeout = timeout
        self._verify_ssl = verify_ssl

    def list(self, now: float | None = None) -> list[JsonObject]:
        """Returns the server's models, the last changed first.

        Each has `name, size, modified, size_bytes, modified_at, digest, family, parameters` (`"1.7B"`),
        `parameter_count, quantization, context_length, capabilities`; what the server does not tell is None.
        """
        with self._client(min(self._timeout, _LOOK_SECONDS)) as client:
            rows = list(client.list().models)
            known = in_parallel(lambda row: _facts_or_none(client, row), rows)
        moment = time.time() if now is None else now
        return [_described(row, shown, moment) for row, shown in zip(rows, known, strict=True)]

    def show(self, name: str, now: float | None = None) -> JsonObject:
        """Returns one model as `list` does, and its `details`, `model_info` and `template`."""
        with self._client(min(self._timeout, _LOOK_SECONDS), name) as client:
            shown = client.show(name)
            row = _row_of(client.list(), name)
        return {
            **_described(row, shown, time.time() if now is None else now),
            "details": shown.details.model_dump() if shown.details else {},
            "model_info": dict(shown.modelinfo or {}),
            "template": shown.template,
        }

    def pull(self, name: str, progress: Progress | None = None) -> JsonObject:
        """Has the server pull a model and returns it as `list` does; `progress` gets bytes over the files so far known.

        What `progress` raises closes the connection: the server stops then, and keeps what it has for the next time.
        """
        done: dict[str, int] = {}
        totals: dict[str, int] = {}
        status = None
        with closing(self._pulling(name)) as lines:
            for line in lines:
                status = line.status
                if line.digest and line.total:
                    totals[line.digest], done[line.digest] = line.total, line.completed or 0
                if progress and totals:
                    progress(sum(done.values()), sum(totals.values()))
        if status != "success":
            raise EngineError(f"Ollama's pull of '{name}' ended early, at '{status}': try again, it goes on from there")
        with self._client(min(self._timeout, _LOOK_SECONDS), name) as client:
            return _described(_row_of(client.list(), name), client.show(name), time.time())

    def _pulling(self, name: str) -> "Generator[ProgressResponse]":
        # A generator: what `progress` raises does not pass through the translation of errors here.
        with self._client(max(self._timeout, _PULL_SECONDS), name) as client:
            yield from client.pull(name, stream=True)

    def version(self) -> str:
        """Returns the server's version."""
        import httpx

        url = f"{self._api_base.rstrip('/')}/api/version"  # the official client has no call for it
        with self._translated(""):
            answer = httpx.get(url, verify=self._verify_ssl, timeout=_CONNECT_SECONDS, trust_env=False)
            return str(answer.raise_for_status().json()["version"])

    def ping(self) -> JsonObject:
        """Returns `version` and `latency_ms` of a server that answers."""
        started = time.perf_counter()
        version = self.version()
        return {"version": version, "latency_ms": round((time.perf_counter() - started) * 1000, 1)}

    @contextmanager
    def _client(self, seconds: float, name: str = "") -> "Iterator[Client]":
        import httpx
        from ollama import Client

        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        with (
            self._translated(name),
            Client(self._api_base, timeout=timeout, verify=self._verify_ssl, trust_env=False) as client,
        ):
            yield client

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        import httpx
        from ollama import ResponseError
        from pydantic import ValidationError

        try:
            yield
        except PlatformError:
            raise
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise unreachable(self._api_base) from exc
        except ResponseError as exc:
            raise _error_for(exc.status_code, str(exc.error), name) from exc
        except httpx.TimeoutException as exc:
            raise EngineUnavailableError(f"Ollama server at {self._api_base} did not answer in time") from exc
        except httpx.TransportError as exc:
            raise EngineUnavailableError(f"The connection to Ollama server at {self._api_base} broke: {exc}") from exc
        except (ValidationError, ValueError, KeyError, TypeError, httpx.HTTPError) as exc:
            raise EngineError(f"What answers at {self._api_base} is no Ollama server: {exc}") from exc


def unreachable(api_base: str) -> EngineUnavailableError:
    """Returns the error for a server that nobody can connect to, with how to look and how to start it."""
    return EngineUnavailableError(
        f"Failed to connect to Ollama server at {api_base}. Look whether it runs: curl {api_base}/api/version . "
        "Start it: ollama serve . Another address: set OLLAMA_HOST, or ollama.api_base in engines_config.yaml.",
        details={"api_base": api_base},
    )


def full_name(name: str) -> str:
    """Returns a model's name as Ollama lists it: with its tag, without the default registry."""
    for place in _DEFAULT_PLACES:
        name = name.removeprefix(place)
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


class _Facts:
    """What servers said about models, by digest: the same digest is the same model, wherever it is."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_digest: dict[str, ShowResponse] = {}
        self._lock = threading.Lock()

    def get(self, client: "Client", row: "ListResponse.Model") -> "ShowResponse":
        """Returns what the server says of a listed model, asked for once."""
        digest = row.digest or ""
        with self._lock:
            known = self._by_digest.get(digest)
        if known is None:
            known = client.show(row.model or "")
            with self._lock:
                if len(self._by_digest) >= self._most:
                    self._by_digest.clear()
                if digest:
                    self._by_digest[digest] = known
        return known


_facts = _Facts(most=1000)


def _facts_or_none(client: "Client", row: "ListResponse.Model") -> "ShowResponse | None":
    from ollama import ResponseError

    try:
        return _facts.get(client, row)
    except ResponseError:  # deleted meanwhile, or damaged: the list is still of use
        return None


def _described(row: "ListResponse.Model", shown: "ShowResponse | None", now: float) -> JsonObject:
    details = row.details
    info = (shown.modelinfo if shown else None) or {}
    size = int(row.size or 0)
    modified_at = row.modified_at.timestamp() if row.modified_at else 0.0
    text = details.parameter_size if details else None
    exact = info.get("general.parameter_count")
    return {
        "name": row.model,
        "size": human_size(size),
        "modified": human_time(modified_at, now),
        "size_bytes": size,
        "modified_at": modified_at,
        "digest": f"sha256:{row.digest}" if row.digest else None,
        "source": "ollama",
        "family": details.family if details else None,
        "format": details.format if details else None,
        "parameters": text,
        "parameter_count": exact if isinstance(exact, int) else stated_parameters(text),
        "quantization": details.quantization_level if details else None,
        "context_length": info.get(f"{info.get('general.architecture')}.context_length"),
        "capabilities": list((shown.capabilities if shown else None) or []),
    }


def _row_of(listed: "ListResponse", name: str) -> "ListResponse.Model":
    wanted = full_name(name)
    rows = {row.model or "": row for row in listed.models}
    found = rows.get(wanted) or next((row for known, row in rows.items() if known.lower() == wanted.lower()), None)
    if found is None:
        raise ModelNotFoundError(f"Model '{name}' not found in Ollama: it was deleted this moment")
    return found


def _error_for(status: int, text: str, name: str) -> PlatformError:
    lowered = text.lower()
    if status == 404 or "file does not exist" in lowered or "manifest unknown" in lowered:
        where = "in Ollama's registry" if "manifest" in lowered else "in Ollama"
        return ModelNotFoundError(f"Model '{name}' not found {where} ({text}): see ollama list, or ollama pull {name}")
    if "no space left" in lowered:
        return StoreUnavailableError(f"There is no room left on Ollama's disk: {text}")
    if any(sign in lowered for sign in _REGISTRY_AWAY):
        return EngineUnavailableError(f"Ollama cannot reach the registry of '{name}': {text}")
    if 400 <= status < 500:
        return InvalidInputError(f"Ollama: {text}")
    return EngineError(f"Ollama: {text}")
