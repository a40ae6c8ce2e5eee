"""Connection: the service's HTTP API as the command line uses it. Every failure becomes a sentence."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from src.cli.failures import CommandError, UnreachableError
from src.core.config import is_loopback

JsonObject = dict[str, Any]

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 300.0
SILENT_SECONDS = 60.0
"""Longest silence between a job's events: the service sends a comment every few seconds."""


class Connection:
    """One service; `api_key` travels as `Authorization: Bearer`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise CommandError("An API key consists of printable ASCII characters")
        try:
            parts = urlsplit(self.url)
            local = is_loopback(parts.hostname or "") and parts.port != 0  # reading the port checks it
            self._client = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                trust_env=not local,  # no proxy stands between this machine and itself
            )
        except (httpx.InvalidURL, ValueError) as exc:
            raise CommandError(f"'{url}' is no address of a service: {exc}") from exc

    def close(self) -> None:
        """Closes it."""
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """Returns the answer to a GET; parameters that are None are left out."""
        return self._asked("GET", path, params=_given(query))

    def delete(self, path: str, **query: Any) -> Any:
        """Returns the answer to a DELETE."""
        return self._asked("DELETE", path, params=_given(query))

    def post(self, path: str, body: JsonObject | None = None, *, patient: bool = False, **query: Any) -> Any:
        """Returns the answer to a POST of JSON; a patient one waits for it without end."""
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS) if patient else httpx.USE_CLIENT_DEFAULT
        given = None if body is None else _given(body)
        return self._asked("POST", path, json=given, params=_given(query), timeout=timeout)

    def send(self, path: str, body: Iterable[bytes], *, content_type: str, length: int) -> Any:
        """Returns the answer to a POST whose body is sent piece by piece."""
        headers = {"Content-Type": content_type, "Content-Length": str(length)}
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        return self._asked("POST", path, content=body, headers=headers, timeout=timeout)

    def events(self, path: str, body: JsonObject | None = None) -> Iterator[JsonObject]:
        """Yields the JSON value of each server-sent event until the stream ends; a `body` is posted, and waited for.

        The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        method, silence = ("GET", SILENT_SECONDS) if body is None else ("POST", None)
        timeout = httpx.Timeout(silence, connect=CONNECT_SECONDS)
        with self._translated(), self._client.stream(method, path, json=body, timeout=timeout) as response:
            if response.is_error:
                response.read()
            _check(response)
            lines: list[str] = []
            for line in response.iter_lines():
                if line.startswith("data:"):
                    lines.append(line[5:].removeprefix(" "))
                elif not line and lines:
                    yield json.loads("\n".join(lines))
                    lines = []

    def _asked(self, method: str, path: str, **options: Any) -> Any:
        with self._translated():
            response = self._client.request(method, path, **options)
            _check(response)
            try:
                return response.json()
            except ValueError as exc:
                raise CommandError(
                    f"What answers at {self.url} is no service of this kind: its answer is no JSON"
                ) from exc

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise UnreachableError(
                f"No service answers at {self.url}: start it with `make run` (or `aiml serve`), "
                "or say with --url or AIML_URL where it is"
            ) from exc
        except httpx.TimeoutException as exc:
            raise UnreachableError(f"The service at {self.url} has not answered in time") from exc
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
            raise CommandError(f"'{self.url}' is no address of a service: {exc}") from exc
        except httpx.TransportError as exc:
            raise UnreachableError(f"The connection to {self.url} broke off ({exc})") from exc


def _check(response: httpx.Response) -> None:
    """Raises `CommandError` with the service's sentence where the answer is a failure."""
    if response.is_success:
        return
    try:
        envelope = response.json()
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict) or "error" not in envelope:
        raise CommandError(
            f"{response.url} answered {response.status_code} {response.reason_phrase}", status=response.status_code
        )
    hint = " (give it with --api-key or AIML_API_KEY)" if response.status_code == httpx.codes.UNAUTHORIZED else ""
    raise CommandError(f"{envelope['error']}{hint}", answer=envelope, status=response.status_code)


def _given(values: JsonObject) -> JsonObject:
    return {name: value for name, value in values.items() if value is not None}
