"""Blocking work off the event loop, in threads that cannot keep an interpreter from ending."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Runs blocking work in a daemon thread of its own and returns its value.

    `asyncio.to_thread` would not do: its pool is joined at the interpreter's exit, where a call that
    hangs hangs everything, and refuses work after that, which atexit callbacks may still ask for.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = work()
        except BaseException as exc:
            _tell(loop, future, None, exc)
        else:
            _tell(loop, future, value, None)

    threading.Thread(target=run, name="aiml-blocking", daemon=True).start()
    return await future


def in_background(work: Callable[[], object], done: Callable[[], object]) -> None:
    """Runs blocking work in a daemon thread that nobody waits for; `done` is called after it, whatever happens."""

    def run() -> None:
        try:
            work()
        except Exception:
            logger.warning("background work failed", exc_info=True)
        finally:
            done()

    threading.Thread(target=run, name="aiml-background", daemon=True).start()


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[T]", value: T | None, error: BaseException | None
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop has ended: nobody waits any more
