"""Files over HTTP: a multipart body goes to disk while it arrives, nothing of it larger than a chunk in memory."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from src.api.errors import UnsupportedMediaTypeError
from src.api.form_intake import HOW, FormIntake, Received, too_large
from src.core.errors import CancelledError
from src.core.threads import in_thread

_BATCH = 1024 * 1024  # bytes that a thread takes at once

__all__ = ["Received", "receive"]


async def receive(request: Request, folder: Path, *, max_bytes: int, max_files: int = 1000) -> Received:
    """Writes the files of a multipart request below `folder`, which is made, and is gone again after an error.

    Files come in the field `files` (or `file`), texts in `name` and `description`. Raises `ValidationError` or
    `InvalidInputError` for a body that is no such form and for a file name that cannot be, `PayloadTooLargeError`
    past `max_bytes` of body or `max_files`, `CancelledError` where the client leaves midway.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaTypeError(f"this route takes files in a form: {HOW}")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large(max_bytes)
    intake = await in_thread(lambda: FormIntake(content_type, folder, max_bytes=max_bytes, max_files=max_files))
    writing: asyncio.Task[None] | None = None
    try:
        async for batch in _batches(request):
            if writing:
                await writing
            # The next batch comes in while this one is written.
            writing = asyncio.create_task(in_thread(partial(intake.feed, batch)))
        if writing:
            await writing
        return await in_thread(intake.finish)
    except ClientDisconnect as exc:
        await asyncio.shield(_discard(intake, writing))
        raise CancelledError("The client left before its upload was complete: nothing of it is kept") from exc
    except BaseException:
        await asyncio.shield(_discard(intake, writing))
        raise


async def _discard(intake: FormIntake, writing: asyncio.Task[None] | None) -> None:
    if writing:
        await asyncio.gather(writing, return_exceptions=True)  # what it meets now is no news
    await in_thread(intake.discard)


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
