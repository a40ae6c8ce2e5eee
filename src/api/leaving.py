"""Notices clients that go away while their request runs, and stops its work."""

import asyncio

from starlette.types import Receive

from src.inference.manager import InferenceManager
from src.inference.types import InferenceRequest, JsonObject

WATCH_AFTER = 0.02
"""Seconds after which a request is watched for its client's leaving."""


class Watch:
    """Cancels the running task when its client goes away.

    It looks only at requests that take longer than a moment: most are answered before a task that
    looks would pay.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._request = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None
        self.left = False
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._start)

    def end(self) -> None:
        """Stops looking."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._request is not None:
            self._request.cancel()


async def answered(manager: InferenceManager, request: InferenceRequest, receive: Receive) -> JsonObject | None:
    """Returns the answer, or None when nobody is there any more to have it; the work is stopped then."""
    watch = Watch(receive)
    try:
        return await manager.execute(request)
    except asyncio.CancelledError:
        if watch.left:
            return None
        raise
    finally:
        watch.end()
