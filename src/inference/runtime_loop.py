"""The event loop that inference runs on: the service's own, or one in a thread for the Python door."""

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class RuntimeLoop:
    """Runs coroutines on one loop, from whichever thread or loop they are asked for."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Makes a running loop (the service's) the one that everything runs on."""
        self._loop = loop

    def end(self) -> None:
        """Ends the loop in its thread; a loop that was bound is left to its owner."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def reset(self) -> None:
        """Forgets the loop; in a forked process its thread does not exist."""
        self._loop = self._thread = None
        self._lock = threading.Lock()

    @property
    def bound(self) -> asyncio.AbstractEventLoop | None:
        """The loop, if there is one already."""
        return self._loop

    @property
    def started(self) -> bool:
        """Whether there is a loop already."""
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Blocks until the work is done; may be called from any thread but the loop's own."""
        loop = self._running()
        if _current_loop() is loop:
            work.close()
            raise RuntimeError("the blocking call was made on the service's event loop: await the async one instead")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except (KeyboardInterrupt, concurrent.futures.CancelledError):
            future.cancel()
            raise

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits the work, from this loop or from a caller's own."""
        loop = self._running()
        if asyncio.get_running_loop() is loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = self._start_thread()
            return self._loop

    def _start_thread(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        # A daemon: the interpreter ends without waiting for it, and the workers end with the process.
        self._thread = threading.Thread(target=loop.run_forever, name=f"aiml-loop-{os.getpid()}", daemon=True)
        self._thread.start()
        return loop


def _current_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
