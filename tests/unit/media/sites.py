"""A web server on this machine for the fetcher, and names that lead where a test says."""

import http.server
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from src.core.errors import PlatformError
from src.core.settings_sections import MediaSettings
from src.media import fetching
from src.media.fetching import Fetcher

PNG = b"\x89PNG\r\n\x1a\n and so on"
PUBLIC = "93.184.216.34"


@dataclass
class Site:
    """A server on this machine, and what it was asked."""

    port: int
    answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "files.test") -> str:
        """Returns the address of something there."""
        return f"http://{host}:{self.port}{path}"

    def fetcher(self, settings: MediaSettings | None = None, host: str = "files.test") -> Fetcher:
        """Returns a fetcher that may go there."""
        return Fetcher(settings or MediaSettings(), [f"{host}:{self.port}"], resolve=names({host: ["127.0.0.1"]}))


def names(known: dict[str, list[str]]) -> fetching.Resolve:
    """Returns a resolver that knows these names."""

    async def resolve(host: str, port: int) -> list[str]:
        if host not in known:
            raise OSError("no such name")
        return known[host]

    return resolve


@contextmanager
def running_site(body: bytes = PNG) -> Iterator[Site]:
    """Runs a server that sends a PNG, and what tests add."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place.asked.append((self.headers["Host"], self.path))
            place.answers.get(self.path, lambda handler: answer(handler, body))(self)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    place = Site(server.server_port)
    thread = threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True)
    thread.start()
    yield place
    server.shutdown()
    server.server_close()
    thread.join()


def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Sends an answer; underscores in names of headers stand for dashes."""
    handler.send_response(status)
    told = {"Content_Type": "image/png", "Content_Length": str(len(body)), **headers}
    for name, value in told.items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@asynccontextmanager
async def closing(fetcher: Fetcher) -> AsyncIterator[Fetcher]:
    """Closes a fetcher after use."""
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def fetched(fetcher: Fetcher, url: str, kind: str = "image") -> bytes:
    """Returns what is fetched."""
    async with closing(fetcher):
        with await fetcher.fetch(url, kind, kind) as content:
            return content.read()


async def streamed() -> AsyncIterator[bytes]:
    """Yields the picture as it comes from a network."""
    yield PNG


async def refusal(fetcher: Fetcher, url: str, kind: str = "image") -> PlatformError:
    """Returns the error that a URL is refused with."""
    with pytest.raises(PlatformError) as caught:
        await fetched(fetcher, url, kind)
    return caught.value
