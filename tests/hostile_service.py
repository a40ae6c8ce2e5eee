"""The service, with decoder processes that fail on command and an internet of its own; a program like `src.main`.

In this internet `PUBLIC` is a server that sends a picture of 7 x 5, and names lead where `NAMES` says.
"""

from collections.abc import AsyncIterator
from functools import cached_property

import httpx
import uvicorn

from src.core import logs
from src.core.config import load_settings
from src.core.model_manager import ModelManager
from src.inference.manager import InferenceManager
from src.inference.registry import model_registry
from src.main import create_app
from src.media import fetching
from src.media.loader import MediaLoader
from src.media.paths import media_roots
from src.media.pool import DecoderPool
from tests.unit.media import faults
from tests.unit.media.media_files import noise, picture
from tests.unit.media.sites import PUBLIC

FAR = (5, 7)
"""Height and width of what the public server sends."""
NAMES = {
    "public.test": [PUBLIC],
    "localhost": ["127.0.0.1"],
    "files.test": ["127.0.0.1"],
    "other.test": ["127.0.0.1"],
    "mixed.test": [PUBLIC, "10.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "inner6.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "xn--mnchen-3ya.test": ["127.0.0.1"],
}
CHANGING = "rebind.test"
"""A name that is public when it is asked for the first time, and this machine ever after."""

_asked: list[str] = []
_real_transport = fetching._transport


async def resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a name."""
    host = host.rstrip(".")
    if host == CHANGING:
        _asked.append(host)
        return [PUBLIC] if len(_asked) == 1 else ["127.0.0.1"]
    if host not in NAMES:
        raise OSError("no such name")
    return NAMES[host]


class Internet(httpx.AsyncBaseTransport):
    """Answers for the public server; everything else is real."""

    def __init__(self) -> None:
        self._real = _real_transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == PUBLIC:
            return httpx.Response(200, content=_sent(), headers={"content-type": "image/png"})
        return await self._real.handle_async_request(request)

    async def aclose(self) -> None:
        await self._real.aclose()


async def _sent() -> AsyncIterator[bytes]:
    yield picture(noise(*FAR))


class FaultyManager(InferenceManager):
    """A manager whose decoder processes fail on command."""

    @cached_property
    def media(self) -> MediaLoader:
        """What fetches and decodes media."""
        settings = self.settings.media
        pool = DecoderPool(settings, modules=(faults.__name__,))
        roots, allow = media_roots(self.settings), self.settings.fetch_allow
        return MediaLoader(settings, roots=roots, allow=allow, pool=pool, resolve=resolve)


def main() -> None:
    """Serves until told to stop."""
    settings = load_settings()
    logs.configure(settings)
    fetching._transport = Internet  # type: ignore[assignment]
    models = ModelManager(settings)
    app = create_app(settings, models=models, manager=FaultyManager(models, model_registry))
    uvicorn.run(app, host=settings.host, port=settings.port, loop="uvloop", http="httptools", log_config=None)


if __name__ == "__main__":
    main()
