"""Intake: a request's media, fetched and decoded before its model sees them."""

import io
from collections.abc import Callable, Sequence
from functools import partial

from src.core.threads import in_thread
from src.inference.models.base import BaseModelHandler, MediaField
from src.inference.page_words import PageReader
from src.inference.types import InferenceRequest, JsonObject
from src.media.decoded import Decoded, DecodedImage, as_data
from src.media.loader import MediaLoader


class Intake:
    """Replaces the media in a request's `data` by what the handler's fields and the model want."""

    def __init__(self, loader: Callable[[], MediaLoader], reader: PageReader) -> None:
        self._loader = loader
        self._reader = reader

    async def probe(self, handler: type[BaseModelHandler], request: InferenceRequest) -> None:
        """Raises what `decoded` would for media that are not there, or nothing like what their field takes."""
        for field, media in handler.media.items():
            if request.data.get(field) is not None:
                await self._loader().probe(
                    request.data[field], media.kind, field=f"data.{field}", trusted=request.trusted
                )

    async def decoded(
        self, handler: type[BaseModelHandler], request: InferenceRequest, options: JsonObject, facts: JsonObject
    ) -> tuple[JsonObject, list[str]]:
        """Returns `data` with each media field as `as_data` has it, and the decoders' warnings.

        `facts`: what the loaded model wants. Raises what `MediaLoader.load` raises.
        """
        data, warnings = dict(request.data), list[str]()
        for field, media in handler.media.items():
            if data.get(field) is None:
                continue
            wishes = handler.media_wishes(field, options, facts)
            found = await self._load(request, field, media, wishes)
            warnings += [warning for item in found for warning in item.warnings]
            plain = [as_data(item) for item in found]
            if media.kind == "document" and facts.get("needs_words"):
                for document in plain:
                    await self._reader.fill(document, f"data.{field}")
            data[field] = plain if media.many else plain[0]
        return data, list(dict.fromkeys(warnings))

    async def encoded(self, handler: type[BaseModelHandler], request: InferenceRequest) -> tuple[JsonObject, list[str]]:
        """Returns `data` with each picture as a list of PNG files, upright, for a server that decodes by itself.

        Nothing that was not decoded here first leaves for it.
        """
        data, warnings = dict(request.data), list[str]()
        for field, media in handler.media.items():
            if data.get(field) is None:
                continue
            found = [item for item in await self._load(request, field, media, {}) if isinstance(item, DecodedImage)]
            warnings += [warning for item in found for warning in item.warnings]
            data[field] = await in_thread(partial(_pngs, found))
        return data, list(dict.fromkeys(warnings))

    async def _load(
        self, request: InferenceRequest, field: str, media: MediaField, wishes: JsonObject
    ) -> list[Decoded]:
        value, name = request.data[field], f"data.{field}"
        if media.many:
            return await self._loader().load_all(value, media.kind, field=name, trusted=request.trusted, **wishes)
        return [await self._loader().load(value, media.kind, field=name, trusted=request.trusted, **wishes)]


def _pngs(pictures: Sequence[DecodedImage]) -> list[bytes]:
    from PIL import Image

    files = [io.BytesIO() for _ in pictures]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture.pixels).save(file, "PNG", compress_level=1)
    return [file.getvalue() for file in files]
