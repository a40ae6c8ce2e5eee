"""ProcessWorker: a model in a process of its own, seen from the service."""

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from src.core.errors import (
    InsufficientMemoryError,
    ModelLoadError,
    PlatformError,
    ValidationError,
    WorkerDiedError,
)
from src.core.memory import KernelWatch, process_memory
from src.inference.types import JsonObject, OnDelta
from src.inference.workers import buffers, failures
from src.inference.workers.base import DeathListener, LoadReport, LoadSpec, WorkerAnswer
from src.inference.workers.child import NOT_IMPORTABLE
from src.inference.workers.host import NotImportableError, import_path
from src.inference.workers.launching import WorkerProcess
from src.inference.workers.messages import Decoder, Frame, Kind, ProtocolError, check_hello, encode, encode_any, hello

kernel_watch = KernelWatch()
"""Looked at every few seconds by whoever sweeps, so that an old kill is not blamed for a new death."""

_PATROL_SECONDS = 0.25
"""Between two looks at who has waited too long: a timer for each request costs more than all that they find."""

Launch = Callable[[socket.socket], Awaitable[WorkerProcess]]


class ProcessWorker(asyncio.Protocol):
    """One worker process and the requests inside it. Lives on one event loop."""

    def __init__(
        self,
        launch: Launch,
        *,
        start_timeout: float,
        load_timeout: float,
        max_batch_size: int = 32,
        max_wait_ms: float = 0.0,
    ) -> None:
        self.report = LoadReport(None, None, None)
        self._launch = launch
        self._max_batch_size, self._max_wait_ms = max_batch_size, max_wait_ms
        self._start_timeout, self._load_timeout = start_timeout, load_timeout
        # Kept, since asking for the running loop is a call of the kernel before Python 3.12.
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._listeners: dict[int, OnDelta] = {}
        self._deadlines: dict[int, tuple[float, float]] = {}
        self._patrol: asyncio.TimerHandle | None = None
        self._decoder = Decoder()
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._process: WorkerProcess | None = None
        self._greeted: asyncio.Future[None] | None = None
        self._death: PlatformError | None = None
        self._on_death: DeathListener | None = None
        self._leaving = False
        self._reaping: asyncio.Task[None] | None = None
        self.exit_code: int | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid if self._process else 0

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered yet."""
        return len(self._pending)

    async def load(self, spec: LoadSpec, on_death: DeathListener) -> None:
        """Starts the process and loads the model in it; on any failure the process is gone again."""
        try:
            await self._start()
            value = {
                "spec": spec.as_json(),
                "import_path": import_path(),
                "max_batch_size": self._max_batch_size,
                "max_wait_ms": self._max_wait_ms,
            }
            answer = await asyncio.wait_for(self._ask(Kind.LOAD, value), self._load_timeout)
            if self._death is not None:
                raise self._death  # it ended after its last word, before we heard it
        except TimeoutError as exc:
            self._kill()
            raise ModelLoadError(f"Model '{spec.model_name}' was not loaded within {self._load_timeout:g} s") from exc
        except WorkerDiedError as exc:
            raise await self._died_loading(spec, exc) from exc
        except BaseException:
            self._kill()
            raise
        self.report = LoadReport(**answer.value())
        self._on_death = on_death

    async def infer(
        self,
        data: Any,
        options: JsonObject,
        timeout: float | None = None,
        *,
        on_delta: OnDelta | None = None,
        priority: int = 0,
    ) -> WorkerAnswer:
        """Answers one request; cancelling the call, or `timeout` seconds passing, stops the work within one step."""
        value = {"data": data, "options": options}
        if on_delta is not None:
            value["stream"] = True
        try:
            frame = await self._ask(Kind.INFER, value, timeout, on_delta, priority)
        except TypeError as exc:
            raise ValidationError(f"data and options must hold JSON values, bytes or arrays: {exc}") from exc
        answer = frame.value()
        return WorkerAnswer(answer["result"], answer["warnings"])

    async def unload(self) -> None:
        """Ends the process: that gives back its memory, whatever the model's libraries hold on to."""
        self._leaving = True
        self._fail_all(WorkerDiedError("the model was unloaded meanwhile; ask again"))
        self._kill()
        await self._reaped()

    def abandon(self) -> None:
        """Closes our copy of the socket without a word; for a forked copy of the service's process."""
        if self._transport is not None:
            os.close(self._transport.get_extra_info("socket").fileno())

    async def post_mortem(self) -> str | None:
        """Returns how the process ended, in words."""
        await self._reaped()
        return describe_exit(self.exit_code)

    def memory_bytes(self) -> int | None:
        """Returns the proportional set size of the process, in bytes."""
        return process_memory(self.pid) if self.pid else None

    # ------------------------------------------------------------------ asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._received(frame)
        except ProtocolError as exc:
            self._death = WorkerDiedError(f"the worker does not keep to the protocol: {exc}")
            self._kill()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        death = self._death or self._cause_of_death()
        self._death = death
        self._fail_all(death)
        if self._on_death is not None and not self._leaving:
            self._on_death(death)
        asyncio.get_running_loop().create_task(self._reaped())

    # ------------------------------------------------------------------ inside

    def _cause_of_death(self) -> PlatformError:
        if kernel_watch.look():
            return InsufficientMemoryError(
                f"the model's process was killed by the kernel: out of memory. {failures.MEMORY_ADVICE}"
            )
        return WorkerDiedError("the model's process ended while it held this request; ask again")

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._greeted = loop.create_future()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await self._launch(theirs)
        except BaseException:
            ours.close()  # or a process that is made after all would wait for us
            raise
        ours.setblocking(False)
        await loop.create_unix_connection(lambda: self, sock=ours)
        self._send(hello())
        try:
            await asyncio.wait_for(self._greeted, self._start_timeout)
        except TimeoutError as exc:
            raise ModelLoadError(f"a worker process did not start within {self._start_timeout:g} s") from exc

    async def _died_loading(self, spec: LoadSpec, death: WorkerDiedError) -> PlatformError:
        self._kill()
        end = await self.post_mortem()
        if isinstance(self._death, InsufficientMemoryError):
            return self._death
        reason = f": {end}" if end else ""
        return WorkerDiedError(f"the process of model '{spec.model_name}' died while it loaded{reason}")

    async def _ask(
        self,
        kind: Kind,
        value: JsonObject,
        timeout: float | None = None,
        on_delta: OnDelta | None = None,
        priority: int = 0,
    ) -> Frame:
        if self._death is not None:
            raise self._death
        request_id = next(self._ids)
        frame, files = encode_any(kind, request_id, value, priority)
        loop = self._loop
        future: asyncio.Future[Frame] = loop.create_future()
        self._pending[request_id] = future
        if on_delta is not None:
            self._listeners[request_id] = on_delta
        self._send(frame)
        if timeout is not None:
            self._deadlines[request_id] = loop.time() + timeout, timeout
            if self._patrol is None:
                self._patrol = loop.call_later(_PATROL_SECONDS, self._look_at_deadlines)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(request_id)
            raise
        finally:
            self._pending.pop(request_id, None)
            if timeout is not None:
                self._deadlines.pop(request_id, None)
            if on_delta is not None:
                self._listeners.pop(request_id, None)
            if files:
                buffers.discard(files)

    def _look_at_deadlines(self) -> None:
        now = self._loop.time()
        for request_id, (deadline, seconds) in list(self._deadlines.items()):
            if deadline <= now:
                self._expire(request_id, seconds)
        watched = self._deadlines and self._death is None
        self._patrol = self._loop.call_later(_PATROL_SECONDS, self._look_at_deadlines) if watched else None

    def _expire(self, request_id: int, seconds: float) -> None:
        future = self._pending.get(request_id)
        if future is not None and not future.done():
            self._cancel(request_id)
            future.set_exception(failures.timed_out(seconds))

    def _cancel(self, request_id: int) -> None:
        if self._death is None:
            self._send(encode(Kind.CANCEL, request_id))

    def _received(self, frame: Frame) -> None:
        if frame.kind is Kind.HELLO:
            check_hello(frame)
            if self._greeted is not None and not self._greeted.done():
                self._greeted.set_result(None)
            return
        future = self._pending.get(frame.id)
        if future is None or future.done():
            frame.drop()  # its caller has left
            return
        if frame.kind is Kind.CHUNK:
            self._listeners[frame.id](frame.value())
        elif frame.kind is Kind.ERROR:
            future.set_exception(_error(frame.value()))
        else:
            future.set_result(frame)

    def _send(self, frame: bytes) -> None:
        if self._transport is not None and len(self._pending) < 2:
            self._transport.write(frame)  # to an idle worker, at once
            return
        # One write a turn of the loop, however many requests came in it.
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(frame)

    def _flush(self) -> None:
        frames, self._outbox = self._outbox, []
        if self._transport is not None:
            self._transport.write(b"".join(frames))

    def _fail_all(self, error: PlatformError) -> None:
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_exception(WorkerDiedError("a worker process ended before it could start"))
        for future in list(self._pending.values()):
            if not future.done():
                future.set_exception(error)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        if self._transport is not None:
            self._transport.close()

    async def _reaped(self) -> None:
        if self._reaping is None:
            self._reaping = asyncio.get_running_loop().create_task(self._reap())
        await asyncio.shield(self._reaping)

    async def _reap(self) -> None:
        if self._process is not None:
            self.exit_code = await self._process.exited()


def describe_exit(code: int | None) -> str | None:
    """Returns an exit code in words; None where it is not known."""
    if code is None:
        return None
    if code >= 0:
        return f"its process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"its process was killed by signal {-code} ({name})"


def _error(value: JsonObject) -> Exception:
    if value.get("class") == NOT_IMPORTABLE:
        return NotImportableError(str(value.get("message")))
    return failures.from_json(value)
