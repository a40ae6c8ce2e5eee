"""Notices clients that go away while their request runs, and stops its work; ends every request when time is up."""

import asyncio

from starlette.types import Receive

from src.core.errors import DrainingError
from src.inference.manager import InferenceManager
from src.inference.types import InferenceRequest, JsonObject

WATCH_AFTER = 0.02
"""Seconds between two looks at which requests have come to be watched: after one to two of them."""


class _Round:
    """Begins the watch of requests that take longer than a moment, all with one timer.

    Most are answered before that, and a timer for each costs more than the watch of the few.
    """

    def __init__(self) -> None:
        self._young: dict[Watch, None] = {}
        self._old: dict[Watch, None] = {}
        self._watched: set[Watch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def join(self, watch: "Watch", loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            self._loop, self._young, self._old = loop, {}, {}
            loop.call_later(WATCH_AFTER, self._tick, loop)
        self._young[watch] = None

    def leave(self, watch: "Watch") -> None:
        if self._young.pop(watch, watch) is watch:
            self._old.pop(watch, None)

    def forget(self, watch: "Watch") -> None:
        self._watched.discard(watch)

    def everyone(self) -> list["Watch"]:
        return [*self._young, *self._old, *self._watched]

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        for watch in self._old:
            watch.start()
        self._watched.update(self._old)
        self._old, self._young = self._young, {}
        if self._old:
            loop.call_later(WATCH_AFTER, self._tick, loop)
        else:
            self._loop = None


_round = _Round()


class Watch:
    """Cancels the running task when its client goes away, or when the service has no more time for it."""

    __slots__ = ("_receive", "_request", "_task", "cut", "left")

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop | None = None) -> None:
        # Before Python 3.12, asking for the running loop is a call of the kernel: who knows it says so.
        loop = loop or asyncio.get_running_loop()
        self._receive = receive
        self._request = asyncio.current_task(loop)
        self._task: asyncio.Task[None] | None = None
        self.left = False
        self.cut = False
        _round.join(self, loop)

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.get_running_loop().create_task(self._look())

    def end(self) -> None:
        """Stops looking."""
        if self._task is not None:
            self._task.cancel()
            _round.forget(self)
        else:
            _round.leave(self)

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._stop()

    def cut_off(self) -> None:
        """Stops the request, whose caller is still there to be told so."""
        self.cut = True
        self._stop()

    def _stop(self) -> None:
        if self._request is not None:
            self._request.cancel()


def cut_off_everyone() -> None:
    """Ends every request for inference: its caller gets a `DrainingError`, a stream as its last event."""
    for watch in _round.everyone():
        watch.cut_off()


def cut_off_error() -> DrainingError:
    """Returns what a caller is told whose request is cut off."""
    return DrainingError("the service is stopping and had no more time for this request; ask again in a moment")


async def answered(manager: InferenceManager, request: InferenceRequest, receive: Receive) -> JsonObject | None:
    """Returns the answer, or None when nobody is there any more to have it; the work is stopped then."""
    watch = Watch(receive, manager.loop)
    try:
        return await manager.execute(request)
    except asyncio.CancelledError:
        if watch.left:
            return None
        if watch.cut:
            raise cut_off_error() from None
        raise
    finally:
        watch.end()
