"""Files over HTTP: a multipart body goes to disk while it arrives, nothing of it larger than a chunk in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from src.api.errors import UnsupportedMediaTypeError
from src.api.form_intake import HOW, FormIntake, Received
from src.api.forms import Form
from src.core.errors import CancelledError
from src.core.threads import in_thread

_BATCH = 1024 * 1024  # bytes that a thread takes at once

T = TypeVar("T")

__all__ = ["Received", "receive", "take_in"]


async def receive(request: Request, folder: Path, *, max_bytes: int, max_files: int = 1000) -> Received:
    """Writes the files of a multipart request below `folder`, which is made, and is gone again after an error.

    Files come in the field `files` (or `file`), texts in `name` and `description`. Raises `ValidationError` or
    `InvalidInputError` for a body that is no such form and for a file name that cannot be, `PayloadTooLargeError`
    past `max_bytes` of body or `max_files`, `CancelledError` where the client leaves midway.
    """

    def make(content_type: str) -> FormIntake:
        return FormIntake(content_type, folder, max_bytes=max_bytes, max_files=max_files)

    return await take_in(request, make, HOW)


async def take_in(request: Request, make: Callable[[str], Form[T]], how: str) -> T:
    """Returns what a form of the content type that `make` is given says of the body; after an error nothing is left."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaTypeError(f"this route takes files in a form: {how}")
    length = request.headers.get("content-length", "")
    form = await in_thread(partial(make, content_type))
    writing: asyncio.Task[None] | None = None
    try:
        if length.isdigit() and int(length) > form.max_bytes:
            raise form.too_large()
        async for batch in _batches(request):
            if writing:
                await writing
            # The next batch comes in while this one is written.
            writing = asyncio.create_task(in_thread(partial(form.feed, batch)))
        if writing:
            await writing
        return await in_thread(form.finish)
    except ClientDisconnect as exc:
        await asyncio.shield(_discard(form, writing))
        raise CancelledError("The client left before its upload was complete: nothing of it is kept") from exc
    except BaseException:
        await asyncio.shield(_discard(form, writing))
        raise


async def _discard(form: Form[Any], writing: asyncio.Task[None] | None) -> None:
    if writing:
        await asyncio.gather(writing, return_exceptions=True)  # what it meets now is no news
    await in_thread(form.discard)


async def _batches(request: Request) -> AsyncIterator[bytes]:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size >= _BATCH:
            yield b"".join(chunks)
            chunks, size = [], 0
    yield b"".join(chunks)
