"""The decoder pool: strangers' bytes become arrays in processes that can be lost.

A process serves one job at a time. One that crashes, hangs or takes too much memory fails its own job and is
replaced; the pool starts none before the first job, and ends those that have had nothing to do for a while.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from src.core import errors
from src.core.errors import PlatformError
from src.core.settings_sections import MediaSettings
from src.core.threads import in_thread
from src.media.content import Content, content_of
from src.media.decoded import Decoded
from src.media.detection import check_type, details
from src.media.problems import too_many_bytes
from src.media.process import DecoderProcess, ProcessEndedError
from src.media.wire import BrokenMessageError
from src.media.wishes import wishes_for
from src.media.work import Work

logger = logging.getLogger(__name__)

ABANDONED_SECONDS = 1.0
"""How long a decoding goes on that nobody waits for any more; starting another process costs about as much."""
_IN_LOOP_BYTES = 1 << 20


class DecoderPool:
    """Decodes media in `media.workers` processes at most. Lives on one event loop.

    `modules` are imported by the processes beside the decoders: the way in for a test that wants one to fail.
    """

    def __init__(self, settings: MediaSettings, *, modules: Sequence[str] = ()) -> None:
        self._settings = settings
        self._modules = tuple(modules)
        self._slots = asyncio.Semaphore(settings.workers)
        self._waiting = 0
        self._idle: list[tuple[float, DecoderProcess]] = []
        self._busy: set[DecoderProcess] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._holds: dict[str, str] = {}
        self._counts = {"decoded": 0, "refused": 0, "lost": 0}

    async def decode(self, kind: str, data: Any, *, field: str = "", **wanted: Any) -> Decoded:
        """Decodes `data` (bytes, or `Content`) as an `image`, `audio`, `video` or `document`.

        `field` names the input in errors. What can be wanted: see `wishes`. Raises `InvalidInputError` for what
        cannot be decoded, within `media.decode_timeout` or without a crash; `PayloadTooLargeError` past a bound;
        `QueueFullError` where too many wait. Cancelling it gives the process up soon after.
        """
        wishes = wishes_for(kind, wanted, self._settings)
        content = data if isinstance(data, Content) else await stored(data, kind, field or kind, self._settings)
        try:
            bound = self._settings.max_bytes(kind)
            if content.size > bound:
                raise too_many_bytes(kind, content.field, content.size, bound)
            work = Work(kind, content, check_type(kind, content.head(), content.field), wishes)
            return await self._served(work)
        finally:
            if content is not data:
                content.close()

    def state(self) -> dict[str, Any]:
        """Returns processes, what waits, what was done, and what the processes are confined by (once one started)."""
        return {
            "processes": len(self._idle) + len(self._busy),
            "busy": len(self._busy),
            "waiting": self._waiting,
            **self._counts,
            "confined_by": dict(self._holds),
        }

    async def close(self) -> None:
        """Ends every process; what is being decoded fails."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        processes = [*(process for _, process in self._idle), *self._busy]
        self._idle.clear()
        await asyncio.gather(*(process.gone() for process in processes))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Lets go of the processes without ending them; for a forked copy of the service's process."""
        for process in [*(process for _, process in self._idle), *self._busy]:
            process.abandon()
        self._idle.clear()
        self._busy.clear()

    # ------------------------------------------------------------------ one decoding

    async def _served(self, work: Work) -> Decoded:
        if self._waiting >= self._settings.max_waiting:
            raise errors.QueueFullError(
                f"{self._waiting} inputs wait for decoding already (media.max_waiting): try again in a moment"
            )
        # A task of its own: where the caller leaves, the process must still be brought to an end.
        task = self._in_background(self._serve(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if work.timer is None:
                task.cancel()
            elif not task.done():
                work.timer.reschedule(asyncio.get_running_loop().time() + ABANDONED_SECONDS)
            raise

    async def _serve(self, work: Work) -> Decoded:
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run(await self._process(), work)
        finally:
            self._slots.release()

    async def _process(self) -> DecoderProcess:
        """Returns an idle process, or a new one."""
        if self._closed:
            raise errors.DrainingError("The service is stopping and decodes no more media")
        while self._idle:
            _, process = self._idle.pop()
            if not process.ended:
                self._busy.add(process)
                return process
            self._in_background(process.gone())
        process = DecoderProcess(self._settings, self._modules)
        self._busy.add(process)
        try:
            await process.started()
        except BaseException as exc:
            await self._lose(process)
            if isinstance(exc, ProcessEndedError):
                raise errors.EngineError(f"The decoder process does not start: {exc}") from exc
            raise
        self._holds = process.holds
        return process

    async def _run(self, process: DecoderProcess, work: Work) -> Decoded:
        is_last = True
        try:
            async with asyncio.timeout(self._settings.decode_timeout) as work.timer:
                reply = await process.ask(work.request(self._settings.decode_timeout), work.content.descriptor)
            is_last = not isinstance(reply[0], dict) or bool(reply[0].get("last", True))
            decoded = await work.result(reply, self._settings.memory_mb << 20)
            self._counts["decoded"] += 1
            return decoded
        except TimeoutError as exc:
            self._counts["lost"] += 1
            raise self._late(work) from exc
        except (ProcessEndedError, BrokenMessageError) as exc:
            # One that answers with garbage may have been taken over by what it decoded.
            is_last = True
            self._counts["lost"] += 1
            raise self._crash(work, str(exc)) from exc
        except PlatformError:
            self._counts["refused"] += 1
            raise
        finally:
            if is_last or self._closed:
                await self._lose(process)
            else:
                self._rest(process)

    def _late(self, work: Work) -> PlatformError:
        return work.refused(f"could not be decoded within {self._settings.decode_timeout:g} s (media.decode_timeout)")

    def _crash(self, work: Work, how: str) -> PlatformError:
        logger.warning("a decoder process ended", extra={"how": how, "type": work.type})
        if self._closed:
            return errors.DrainingError("The service is stopping; the decoding was broken off")
        if how.startswith("SIGXCPU"):
            return self._late(work)
        if how.startswith("SIGKILL"):
            return errors.InsufficientMemoryError(
                f"The system ended the decoder of `{work.content.field}`, as it does when memory runs out: send a "
                "smaller input, or try again later",
                details=details(work.content.field, work.type, work.kind),
            )
        memory = f"more than {self._settings.memory_mb} MB are needed (media.memory_mb)"
        return work.refused(f"cannot be decoded: its decoder crashed on it ({how}); it is damaged, or {memory}")

    # ------------------------------------------------------------------ processes

    def _rest(self, process: DecoderProcess) -> None:
        self._busy.discard(process)
        self._idle.append((time.monotonic(), process))
        if self._sweeper is None:
            self._sweep_after(self._settings.idle_seconds)

    async def _lose(self, process: DecoderProcess) -> None:
        try:
            await process.gone()
        finally:
            self._busy.discard(process)

    def _sweep_after(self, seconds: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = time.monotonic() - self._settings.idle_seconds
        for entry in [entry for entry in self._idle if entry[0] <= oldest or entry[1].ended]:
            self._idle.remove(entry)
            self._in_background(entry[1].gone())
        if self._idle and not self._closed:
            self._sweep_after(max(0.05, min(since for since, _ in self._idle) - oldest))

    def _in_background(self, work: Any) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left: then nobody else looks at it


async def stored(data: Any, kind: str, field: str, settings: MediaSettings) -> Content:
    """Returns bytes as content; raises `PayloadTooLargeError` before they are copied."""
    size = memoryview(data).nbytes
    if size > settings.max_bytes(kind):
        raise too_many_bytes(kind, field, size, settings.max_bytes(kind))
    if size <= _IN_LOOP_BYTES:
        return content_of(data, field)
    return await in_thread(lambda: content_of(data, field))
