"""The door of this layer: whatever a caller hands over, decoded."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from src.core.config import Settings
from src.core.errors import InvalidInputError, PayloadTooLargeError, ValidationError
from src.core.settings_sections import MediaSettings
from src.core.threads import in_thread
from src.media import objects
from src.media.content import Content
from src.media.decoded import Decoded, DecodedDocument, Page
from src.media.detection import check_type
from src.media.fetching import Fetcher, Resolve
from src.media.inputs import Inputs
from src.media.paths import media_roots
from src.media.pool import DecoderPool
from src.media.wishes import DocumentWishes, wishes_for


class MediaLoader:
    """Takes media in, fetches it, and has it decoded in the pool. Lives on one event loop; it starts nothing by itself.

    `roots`: folders whose files a request may name; `allow`: `host:port` that may be fetched from anywhere;
    `resolve`: asks for the addresses of a name.
    """

    def __init__(
        self,
        settings: MediaSettings,
        *,
        roots: Sequence[Path] = (),
        allow: Iterable[str] = (),
        pool: DecoderPool | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._settings = settings
        self._fetcher = Fetcher(settings, allow, resolve=resolve)
        self._inputs = Inputs(settings, roots, self._fetcher)
        self.pool = pool or DecoderPool(settings)

    async def load(self, value: Any, kind: str, *, field: str, trusted: bool = False, **wanted: Any) -> Decoded:
        """Returns one input decoded as an `image`, `audio`, `video` or `document`.

        A document may be a list: of pictures, or of documents, whose pages follow one another. `field` names the
        input in errors; `trusted`: it comes from a caller in this process, who may name any file and hand over
        objects of Pillow and numpy. For what can be wanted see `wishes`. Raises what `Inputs.take` and
        `DecoderPool.decode` raise.
        """
        wishes = wishes_for(kind, wanted, self._settings)
        if trusted and may_be_object(value):
            taken = await in_thread(lambda: objects.taken(value, kind, field, wishes, self._settings))
            if taken is not None and not isinstance(taken, bytes):
                return taken
            value = value if taken is None else taken
        if kind == "document" and isinstance(value, list):
            assert isinstance(wishes, DocumentWishes)
            return await self._joined(value, field, trusted, wishes)
        with await self.content(value, kind, field=field, trusted=trusted) as content:
            return await self.pool.decode(kind, content, **wanted)

    async def load_all(
        self, value: Any, kind: str, *, field: str, trusted: bool = False, **wanted: Any
    ) -> list[Decoded]:
        """Returns one input, or each of a list of them, decoded; at most `media.max_inputs`."""
        values = value if isinstance(value, list) else [value]
        bound = self._settings.max_inputs
        if not values:
            raise InvalidInputError(f"`{field}` is an empty list", details={"field": field})
        if len(values) > bound:
            raise PayloadTooLargeError(
                f"`{field}` is a list of {len(values)}; at most {bound} are taken (media.max_inputs)",
                details={"field": field, "setting": "media.max_inputs", "limit": bound},
            )
        names = [f"{field}[{place}]" if isinstance(value, list) else field for place in range(len(values))]
        loads = [
            partial(self.load, item, kind, field=name, trusted=trusted, **wanted)
            for item, name in zip(values, names, strict=True)
        ]
        return await _together(loads, self._settings.workers)

    async def content(self, value: Any, kind: str, *, field: str, trusted: bool = False) -> Content:
        """Returns an input as its bytes, not decoded; for an engine that decodes by itself. The caller closes it."""
        return await self._inputs.take(value, kind, field, trusted=trusted)

    async def probe(self, value: Any, kind: str, *, field: str, trusted: bool = False) -> None:
        """Raises what `load` would for an input that cannot be opened, or begins like no file of its kind.

        It costs little: nothing is fetched or decoded, and objects of a Python caller are left alone.
        """
        if isinstance(value, list):
            for place, item in enumerate(value[: self._settings.max_inputs]):
                await self.probe(item, kind, field=f"{field}[{place}]", trusted=trusted)
            return
        if is_url(value) or (trusted and may_be_object(value)):
            return
        with await self.content(value, kind, field=field, trusted=trusted) as content:
            check_type(kind, content.head(), content.field)

    async def close(self) -> None:
        """Ends the decoder processes and closes connections."""
        await self.pool.close()
        await self._fetcher.close()

    async def _joined(self, values: list[Any], field: str, trusted: bool, wishes: DocumentWishes) -> DecodedDocument:
        whole = {"dpi": wishes.dpi, "images": wishes.images, "words": wishes.words}
        bound = self._settings.max_pdf_pages
        if not values or any(isinstance(item, list) for item in values):
            raise ValidationError(f"`{field}` must be a list of pages or documents", details={"field": field})
        if len(values) > bound:
            raise _too_many_pages(field, len(values), bound)
        names = (f"{field}[{place}]" for place in range(len(values)))
        loads = [
            partial(self.load, item, "document", field=name, trusted=trusted, **whole)
            for item, name in zip(values, names, strict=True)
        ]
        parts = [part for part in await _together(loads, self._settings.workers) if isinstance(part, DecodedDocument)]
        pages = [page for part in parts for page in part.pages]
        if len(pages) > bound:
            raise _too_many_pages(field, len(pages), bound)
        warnings = tuple(warning for part in parts for warning in part.warnings)
        chosen = _renumbered(pages, wishes, field)
        return DecodedDocument(chosen, len(pages), None, parts[0].type, warnings)


def make_loader(settings: Settings) -> MediaLoader:
    """Returns the loader for a service's settings."""
    return MediaLoader(settings.media, roots=media_roots(settings), allow=settings.fetch_allow)


def may_be_object(value: Any) -> bool:
    """Whether a value can be an object of a library, rather than bytes, or text that tells where bytes are."""
    return not isinstance(value, str | bytes | bytearray | memoryview | Path)


def is_url(value: Any) -> bool:
    """Whether a value names a web address."""
    if isinstance(value, dict):
        return "url" in value
    return isinstance(value, str) and value.lstrip()[:8].lower().startswith(("http://", "https://"))


def _renumbered(pages: list[Page], wishes: DocumentWishes, field: str) -> tuple[Page, ...]:
    numbered = [replace(page, number=number) for number, page in enumerate(pages)]
    wanted = range(len(numbered)) if wishes.pages is None else wishes.pages
    if max(wanted) >= len(numbered):
        raise InvalidInputError(
            f"`{field}` has {len(numbered)} pages, from 0 on: there is no page {max(wanted)}", details={"field": field}
        )
    return tuple(numbered[number] for number in wanted)


def _too_many_pages(field: str, count: int, bound: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"`{field}` has {count} pages; at most {bound} are taken (media.max_pdf_pages)",
        details={"field": field, "setting": "media.max_pdf_pages", "limit": bound},
    )


async def _together(loads: Sequence[Callable[[], Coroutine[Any, Any, Any]]], at_once: int) -> list[Any]:
    """Awaits all, some at a time; the first that fails ends the others, and its error is raised."""
    turns = asyncio.Semaphore(at_once)

    async def in_turn(load: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async with turns:
            return await load()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(load)) for load in loads]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    return [task.result() for task in tasks]
