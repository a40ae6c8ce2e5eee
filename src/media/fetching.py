"""The one place that fetches an address a stranger gave us.

A name is resolved once, every address that it has must be a public one, and the connection goes to exactly the
address that was checked, with the name kept for TLS and the Host header: a name server that changes its mind
changes nothing. A redirect is a new address, checked like the first. No proxy, cookie or credential of ours goes
along, and no compression is accepted, so that what arrives is as large as it looks.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.core.errors import InvalidInputError, QueueFullError
from src.core.settings_sections import MediaSettings
from src.core.threads import in_thread
from src.media import addresses
from src.media.addresses import Address
from src.media.content import Content, new_file, write_all
from src.media.problems import too_many_bytes

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_REDIRECTS = 3
PORTS = (80, 443, 8080, 8443)
_MAX_URL = 4096
_REDIRECTS = (301, 302, 303, 307, 308)
_UNSPECIFIC = (
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "application/download",
    "application/force-download",
)
_CONTENT_TYPES: dict[str, tuple[str, ...]] = {
    "image": ("image/",),
    "audio": ("audio/", "video/", "application/ogg", "application/mp4"),
    "video": ("video/", "application/mp4", "application/x-matroska"),
    "document": ("application/pdf", "application/x-pdf", "image/"),
}


@dataclass(frozen=True, slots=True)
class _Target:
    """A checked address: where to connect, and what is asked for there."""

    url: "httpx.URL"
    host: str
    port: int
    addresses: tuple[Address, ...]


class Fetcher:
    """Fetches http(s) URLs into contents. `allow` names `host:port` that may be anywhere: AIML_FETCH_ALLOW."""

    def __init__(self, settings: MediaSettings, allow: Iterable[str] = (), *, resolve: Resolve | None = None) -> None:
        self._settings = settings
        self._allow = frozenset(entry.strip().lower() for entry in allow)
        self._resolve = resolve or _resolve
        self._transport: httpx.AsyncBaseTransport | None = None
        self._slots = asyncio.Semaphore(settings.max_fetches)

    async def fetch(self, url: str, kind: str, field: str) -> Content:
        """Returns what lies at a URL, for an input of a kind.

        Raises `InvalidInputError` for a URL that may not be fetched or does not answer with such an input within
        `media.fetch_timeout`, `PayloadTooLargeError` past the bound of the kind, `QueueFullError` where
        `media.max_fetches` others do not end in that time. What was fetched counts as one of them until it is closed.
        """
        ask = _Ask(kind, field, self._settings.max_bytes(kind))
        await self._turn()
        try:
            async with asyncio.timeout(self._settings.fetch_timeout):
                descriptor, size = await self._follow(url, ask)
        except BaseException as exc:
            self._slots.release()
            if isinstance(exc, TimeoutError):
                seconds = f"{self._settings.fetch_timeout:g} s (media.fetch_timeout)"
                raise ask.refused(f"could not be fetched within {seconds}: send the file itself") from exc
            raise
        return Content(descriptor, size, field, self._slots.release)

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(self._settings.fetch_timeout):
                await self._slots.acquire()
        except TimeoutError as exc:
            raise QueueFullError(
                f"{self._settings.max_fetches} URLs are fetched at the moment (media.max_fetches): try again later"
            ) from exc

    async def close(self) -> None:
        """Closes what is open."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _follow(self, url: str, ask: "_Ask") -> tuple[int, int]:
        target = await self._checked(url, ask)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._response(target, ask) as response:
                location = response.headers.get("location")
                if response.status_code not in _REDIRECTS or not location:
                    return await ask.receive(response)
            target = await self._checked(_joined(target.url, location, ask), ask)
        raise ask.refused(f"is redirected more than {MAX_REDIRECTS} times")

    async def _checked(self, url: str, ask: "_Ask") -> _Target:
        parsed, host, port = _parsed(url, ask)
        exempt = f"{f'[{host}]' if ':' in host else host}:{port}" in self._allow
        if not exempt and port not in PORTS:
            raise ask.refused(f"names port {port}; allowed are {', '.join(map(str, PORTS))} ({_EXEMPTION})")
        try:
            written = addresses.literal(host)
        except ValueError as exc:
            raise ask.refused("has a host that is written in an unusual way") from exc
        found = [written] if written else await self._resolved(host, port, ask)
        # All of them: which one is taken must not be left to chance.
        if not exempt and not all(addresses.is_public(address) and not addresses.is_own(address) for address in found):
            logger.warning("a URL that leads to an address that is not public was refused", extra={"host": host})
            raise ask.refused(f"does not lead to a public address: send the file itself ({_EXEMPTION})")
        return _Target(parsed, host, port, tuple(found))

    async def _resolved(self, host: str, port: int, ask: "_Ask") -> list[Address]:
        try:
            # A zone (`%eth0`) belongs to link-local addresses, which are refused anyway.
            found = [addresses.literal(text.partition("%")[0]) for text in await self._resolve(host, port)]
        except (OSError, ValueError) as exc:
            raise ask.refused("has a host that cannot be found") from exc
        known = [address for address in found if address is not None]
        if not known:
            raise ask.refused("has a host that cannot be found")
        return known

    @asynccontextmanager
    async def _response(self, target: _Target, ask: "_Ask") -> AsyncIterator["httpx.Response"]:
        import httpx

        if self._transport is None:
            self._transport = await in_thread(_transport)
        try:
            response = await self._connected(self._transport, target)
            try:
                yield response
            finally:
                with suppress(httpx.HTTPError):
                    await response.aclose()
        except httpx.TimeoutException as exc:
            raise ask.refused("does not answer") from exc
        except httpx.HTTPError as exc:
            raise ask.refused("cannot be reached, or breaks off") from exc

    async def _connected(self, transport: "httpx.AsyncBaseTransport", target: _Target) -> "httpx.Response":
        import httpx

        for place, address in enumerate(target.addresses):
            try:
                return await transport.handle_async_request(_request(target, address, self._settings.fetch_timeout))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if place + 1 == len(target.addresses):
                    raise
        raise httpx.ConnectError("no address")


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is wanted of a URL; errors speak of it without repeating the URL, which may hold a secret."""

    kind: str
    field: str
    bound: int

    def refused(self, problem: str) -> InvalidInputError:
        """Returns the error for a URL."""
        return InvalidInputError(f"`{self.field}`: the URL {problem}", details={"field": self.field})

    async def receive(self, response: "httpx.Response") -> tuple[int, int]:
        """Returns a descriptor with the body, and its size, within the bound."""
        self._check(response)
        descriptor, size = new_file(), 0
        try:
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > self.bound:
                    raise too_many_bytes(self.kind, self.field, None, self.bound)
                write_all(descriptor, chunk)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, size

    def _check(self, response: "httpx.Response") -> None:
        if response.status_code != 200:
            raise self.refused(f"answers with status {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise self.refused("answers compressed, which was not asked for")
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.bound:
            raise too_many_bytes(self.kind, self.field, int(length), self.bound)
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        accepted = _CONTENT_TYPES[self.kind]
        if content_type not in _UNSPECIFIC and not content_type.startswith(accepted):
            raise self.refused(f"answers with {content_type}; an input of kind {self.kind} is {' or '.join(accepted)}…")


_EXEMPTION = "AIML_FETCH_ALLOW=host:port exempts one"


def _parsed(url: str, ask: _Ask) -> tuple["httpx.URL", str, int]:
    import httpx

    if len(url) > _MAX_URL:
        raise ask.refused(f"has more than {_MAX_URL} characters")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, ValueError) as exc:
        raise ask.refused(f"is none: {exc}") from exc
    if parsed.scheme not in ("http", "https"):
        raise ask.refused("must begin with http:// or https://")
    if parsed.userinfo:
        raise ask.refused("holds a user name or password, which is not sent anywhere: leave it out")
    if not host:
        raise ask.refused("names no host")
    default = 443 if parsed.scheme == "https" else 80
    return parsed, host.strip("[]"), default if parsed.port is None else parsed.port


def _joined(url: "httpx.URL", location: str, ask: _Ask) -> str:
    import httpx

    try:
        return str(url.join(location))
    except (httpx.InvalidURL, ValueError) as exc:
        raise ask.refused("is redirected to what is no URL") from exc


def _request(target: _Target, address: Address, seconds: float) -> "httpx.Request":
    import httpx

    url = target.url.copy_with(host=str(address), fragment=None)
    headers = {
        "Host": target.url.netloc.decode("ascii"),
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": "aiml-platform",
        "Connection": "close",
    }
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    return httpx.Request("GET", url, headers=headers, extensions={"timeout": timeout, "sni_hostname": target.host})


def _transport() -> "httpx.AsyncBaseTransport":
    import httpx

    # In a thread: reading the certificates takes a tenth of a second. No connection is kept: it belongs to one name.
    return httpx.AsyncHTTPTransport(
        verify=httpx.create_ssl_context(), trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
    )


async def _resolve(host: str, port: int) -> list[str]:
    found: list[Any] = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
