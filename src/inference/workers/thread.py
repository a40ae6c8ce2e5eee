"""ThreadWorker: a model in a thread of this process, for classes that no other process can import."""

import asyncio
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from src.core.errors import CancelledError, DrainingError, PlatformError, WorkerDiedError
from src.inference.engines.base import BaseEngine, StopFlag
from src.inference.models.base import BaseModelHandler
from src.inference.types import JsonObject, OnDelta
from src.inference.workers import failures
from src.inference.workers.base import DeathListener, LoadReport, LoadSpec, WorkerAnswer
from src.inference.workers.host import ModelHost
from src.inference.workers.inbox import SECONDS_A_STEP

logger = logging.getLogger(__name__)

_Job = Callable[[], None]
_Turn = tuple[float, int, _Job | None]


class ThreadWorker:
    """One thread that loads one model and answers one request at a time."""

    def __init__(self, engine_class: type[BaseEngine], handler_class: type[BaseModelHandler]) -> None:
        self.report = LoadReport(None, None, None)
        self._classes = engine_class, handler_class
        self._jobs: queue.PriorityQueue[_Turn] = queue.PriorityQueue()
        self._count = itertools.count()
        self._host: ModelHost | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        # A daemon, so that an engine that never returns cannot keep its interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="aiml-worker", daemon=True)

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    @property
    def in_flight(self) -> int:
        """Requests given to the thread and not answered yet."""
        return len(self._pending)

    async def load(self, spec: LoadSpec, on_death: DeathListener) -> None:
        """Starts the thread and loads the model in it."""
        self._thread.start()
        try:
            self.report = await self._do(lambda: self._load(spec))
        except BaseException:
            self._put(None)
            raise

    async def infer(
        self,
        data: Any,
        options: JsonObject,
        timeout: float | None = None,
        *,
        on_delta: OnDelta | None = None,
        priority: int = 0,
    ) -> WorkerAnswer:
        """Answers one request; cancelling the call sets what `stop_requested` tells the engine."""
        if self._host is None:
            raise DrainingError("the model was unloaded meanwhile; ask again")
        stop = StopFlag()
        emit = None if on_delta is None else _from_thread(on_delta)
        try:
            async with asyncio.timeout(timeout):
                answer: WorkerAnswer = await self._do(lambda: self._infer(data, options, stop, emit), priority)
            return answer
        except TimeoutError as exc:
            stop.set()
            raise failures.timed_out(timeout or 0) from exc
        except asyncio.CancelledError:
            stop.set()
            raise

    async def unload(self) -> None:
        """Lets the model go once the running request has ended; those that wait fail as retryable."""
        host, self._host = self._host, None
        for future in list(self._pending):
            if not future.done():
                future.set_exception(WorkerDiedError("the model was unloaded meanwhile; ask again"))
        if host is not None:
            self._put(lambda: _let_go(host))
        self._put(None)

    async def post_mortem(self) -> str | None:
        """Threads do not die on their own."""
        return None

    def memory_bytes(self) -> int | None:
        """Returns the bytes of the weights: the process is shared, so its own size says nothing."""
        return self.report.parameter_bytes

    def _load(self, spec: LoadSpec) -> LoadReport:
        host = ModelHost(spec, *self._classes)
        report = host.load()
        self._host = host
        return report

    def _infer(self, data: Any, options: JsonObject, stop: StopFlag, emit: OnDelta | None) -> WorkerAnswer:
        if stop():
            raise CancelledError("the caller went away before its turn")
        if self._host is None:
            raise DrainingError("the model was unloaded meanwhile; ask again")
        return self._host.infer(data, options, stop, emit)

    async def _do(self, work: Callable[[], Any], priority: int = 0) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.add(future)

        def job() -> None:
            value: Any = None
            error: PlatformError | None = None
            try:
                value = work()
            except BaseException as exc:
                # Also SystemExit: an engine that calls it would end this thread, and nobody would be answered.
                error = failures.engine_failure(exc, self._classes[0].__name__)
            try:
                loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:
                pass  # the loop has ended: nobody waits any more

        self._put(job, priority)
        try:
            return await future
        finally:
            self._pending.discard(future)

    def _run(self) -> None:
        while (job := self._jobs.get()[-1]) is not None:
            job()

    def _put(self, job: _Job | None, priority: int = 0) -> None:
        """Lets a job wait for its turn: as `Inbox` does, by priority and by the time that it waits."""
        self._jobs.put((time.monotonic() - priority * SECONDS_A_STEP, next(self._count), job))


def _from_thread(on_delta: OnDelta) -> OnDelta:
    """Returns what calls `on_delta` on this loop from another thread."""
    loop = asyncio.get_running_loop()

    def emit(text: str) -> None:
        loop.call_soon_threadsafe(on_delta, text)

    return emit


def _let_go(host: ModelHost) -> None:
    try:
        host.unload()
    except Exception:
        logger.exception("an engine failed to unload its model")


def _settle(future: asyncio.Future[Any], value: Any, error: PlatformError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
