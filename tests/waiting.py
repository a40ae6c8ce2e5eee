"""Waiting, in tests, for what nobody announces."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Waits for a condition while the event loop goes on; `TimeoutError` when the time has passed."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
