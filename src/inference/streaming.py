"""An answer in pieces: the events of a request whose caller follows its answer as it comes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from src.inference.types import InferenceRequest, JsonObject

Execute = Callable[[InferenceRequest], Awaitable[JsonObject]]


async def follow(execute: Execute, request: InferenceRequest) -> AsyncGenerator[list[JsonObject], None]:
    """Yields events as they come, those that wait together: `{"type": "delta", "text": …}` for each piece, and last
    `{"type": "result", …}`, the whole envelope.

    The texts of the pieces, joined, are the text of the result. Raises what `execute` raises; closing the
    generator before its end stops the work.
    """
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    work = asyncio.ensure_future(execute(request._replace(on_delta=pieces.put_nowait)))
    work.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        waiting: list[str | None] = []
        while None not in waiting:
            waiting = [await pieces.get()]
            while not pieces.empty():
                waiting.append(pieces.get_nowait())
            if deltas := [{"type": "delta", "text": piece} for piece in waiting if piece is not None]:
                yield deltas
        envelope = await work
        yield [{"type": "result", **envelope, "usage": usage(envelope["result"])}]
    finally:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def usage(result: Any) -> JsonObject:
    """Returns the tokens read and written for a result, as far as its metadata tells; None: it does not."""
    metadata = result.get("metadata") if isinstance(result, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    prompt, completion = metadata.get("prompt_tokens"), metadata.get("tokens")
    known = isinstance(prompt, int) and isinstance(completion, int)
    total = prompt + completion if known else None  # type: ignore[operator]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
