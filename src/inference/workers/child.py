"""The loop of a worker process: one socket to the service, one model, one thread.

While the model is idle the loop waits on the socket; while it computes, the engine's own question
whether to stop (`stop_requested`) reads the socket, so that a CANCEL arrives within one step. Requests
that came in meanwhile are taken together, where the engine can: in one batch, or by its scheduler, where
they join and leave between steps.
"""

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import asdict, replace
from functools import partial
from typing import NoReturn

from src.core.errors import EngineError, PlatformError
from src.inference.engines.base import Scheduler
from src.inference.types import JsonObject
from src.inference.workers import failures
from src.inference.workers.base import LoadSpec, WorkerAnswer
from src.inference.workers.host import ModelHost, NotImportableError, Prepared, import_class
from src.inference.workers.inbox import Inbox, Waiting
from src.inference.workers.messages import Decoder, Frame, Kind, ProtocolError, check_hello, encode, encode_any, hello

logger = logging.getLogger(__name__)

NOT_IMPORTABLE = "NotImportable"
LINGER_SECONDS = 0.0002
GATHER_SHARE, GATHER_SECONDS = 0.03, 0.03
"""How long it may be quiet until those whom a batch answered do not ask again: a share of its time, and at most."""
GATHER_LENGTH = 3
"""How many times as long they are waited for in all, as long as one after the other comes."""
RETURN_SHARE, RETURN_SECONDS = 0.15, 0.003
"""How long those who were answered between two steps have to ask again: a share of a step's time, and at most."""
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 18


class WorkerLoop:
    """Serves one connection until the other side closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder = Decoder()
        self._control: deque[Frame] = deque()
        self._inbox = Inbox()
        self._running: dict[int, bool] = {}
        """The requests inside the model → whether nobody waits for them any more."""
        self._host: ModelHost | None = None
        self._steps: Scheduler | None = None
        self._options: dict[int, JsonObject] = {}
        self._out: list[bytes] = []
        self._max_batch = 1
        self._max_wait = 0.0
        # Who was there when the last batch ended, in it or waiting; when that was; how quiet it may be since.
        self._company = 0
        self._ended = 0.0
        self._quiet = 0.0
        # How many the last step has answered, and how long it took.
        self._answered = 0
        self._step_seconds = 0.0
        # On a single core whoever lingers keeps the service from making the next request.
        self._linger_seconds = LINGER_SECONDS if cores() > 1 else 0.0

    def run(self) -> NoReturn:
        """Reads and answers; never returns."""
        self._socket.sendall(hello())
        check_hello(self._next_control())
        while True:
            if self._steps is not None and len(self._steps):
                self._read(socket.MSG_DONTWAIT)
                self._await_answered()
                self._advance(self._steps)
            else:
                self._wait()
                if self._control:
                    self._out.append(self._load(self._control.popleft()))
                else:
                    self._serve()
            if self._out:
                self._flush()

    # ------------------------------------------------------------------ the socket

    def _next_control(self) -> Frame:
        while not self._control:
            self._read()
        return self._control.popleft()

    def _wait(self) -> None:
        if self._inbox:
            self._read(socket.MSG_DONTWAIT)  # what came while the last one was computed may join its neighbours
        self._linger()
        while not self._inbox and not self._control:
            self._read()

    def _linger(self) -> None:
        """Looks for the next request for a moment before going to sleep, giving way to whoever wants the core.

        Waking a sleeping core takes as long as a small model's answer: a third of the requests per second
        of a single caller.
        """
        end = time.perf_counter() + self._linger_seconds
        while not self._inbox and time.perf_counter() < end:
            self._read(socket.MSG_DONTWAIT)
            os.sched_yield()

    def _read(self, flags: int = 0) -> None:
        try:
            data = self._socket.recv(_CHUNK, flags)
            if data:
                for frame in self._decoder.feed(data):
                    self._sort(frame)
                return
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as exc:
            logger.debug("connection ended: %s", exc)
        # The service is gone or has let go of us. Nothing here is worth an orderly farewell.
        os._exit(0)

    def _sort(self, frame: Frame) -> None:
        if frame.kind is Kind.INFER:
            self._inbox.add(frame)
        elif frame.kind is not Kind.CANCEL:
            self._control.append(frame)
        elif frame.id in self._running:
            self._running[frame.id] = True
            if self._steps is not None:
                self._steps.cancel(frame.id)
        else:
            self._inbox.cancel(frame.id)

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._socket.sendall(out[0] if len(out) == 1 else b"".join(out))

    def _emit(self, request_id: int, text: str, *, at_once: bool) -> None:
        self._out.append(encode(Kind.CHUNK, request_id, text))
        if at_once:
            self._flush()

    # ------------------------------------------------------------------ work

    def _load(self, frame: Frame) -> bytes:
        try:
            value = frame.value()
            for entry in value["import_path"]:
                if entry not in sys.path:
                    sys.path.append(entry)
            spec = LoadSpec(**value["spec"])
            self._host = ModelHost(spec, import_class(spec.engine), import_class(spec.handler))
            report = self._host.load()
            self._steps = self._host.scheduler()
            self._max_batch = value["max_batch_size"] if self._host.batches or self._steps is not None else 1
            self._max_wait = value["max_wait_ms"] / 1000
            at_once = 1 if self._steps is None else self._max_batch
            return encode(Kind.LOADED, frame.id, asdict(replace(report, at_once=at_once)))
        except Exception as exc:
            return _failure(frame.id, exc)

    def _serve(self) -> None:
        """Takes the request whose turn it is, with those that can go with it."""
        waiting = self._inbox.pop()
        host = self._host
        if host is None:
            self._out.append(_failure(waiting.id, EngineError("no model is loaded in this worker")))
            return
        prepared = self._prepared(waiting, host)
        if prepared is None:
            return
        if self._steps is not None and self._steps.takes(prepared.inputs, prepared.options):
            self._enter(self._steps, waiting, prepared)
        elif self._max_batch > 1:
            self._run(host, self._group(waiting, prepared, host))
        else:
            self._run(host, [(waiting, prepared)])

    def _prepared(self, waiting: Waiting, host: ModelHost) -> Prepared | None:
        """Returns a request as its handler prepares it; answers those that it refuses."""
        try:
            prepared = waiting.prepare(host)
        except Exception as exc:
            self._out.append(_failure(waiting.id, exc))
            return None
        if waiting.error is not None:
            self._out.append(_failure(waiting.id, waiting.error))
        return prepared

    def _group(self, first: Waiting, prepared: Prepared, host: ModelHost) -> list[tuple[Waiting, Prepared]]:
        """Returns a request, with those that wait and can be run with it."""
        group = [(first, prepared)]
        key = None if first.streams else host.batch_key(prepared)
        if key is None:
            return group
        patience = first.arrived + self._max_wait
        while True:
            for other in self._inbox:
                if len(group) == self._max_batch:
                    break
                theirs = self._prepared(other, host)
                if theirs is None:
                    self._inbox.take(other)
                elif self._fits(other, theirs, first, key, host):
                    self._inbox.take(other)
                    group.append((other, theirs))
            # Callers that ask again and again would stay apart for good otherwise: one alone, the others together.
            end = max(patience, self._gathering(group)) if len(group) < self._company else patience
            if len(group) == self._max_batch or not self._more_until(end):
                return group

    def _gathering(self, group: list[tuple[Waiting, Prepared]]) -> float:
        """Returns until when those whom the last batch answered are waited for, after the last one of a group."""
        heard = max(self._ended, *(waiting.arrived for waiting, _ in group))
        return min(heard + self._quiet, self._ended + GATHER_LENGTH * self._quiet)

    @staticmethod
    def _fits(other: Waiting, theirs: Prepared, first: Waiting, key: Hashable, host: ModelHost) -> bool:
        same = not other.streams and _same(other.value["options"], first.value["options"])
        return same and host.batch_key(theirs) == key

    def _more_until(self, end: float) -> bool:
        """Whether more requests came in before `end` (of time.monotonic); waits for them."""
        known = len(self._inbox)
        while len(self._inbox) <= known:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return False
            self._read(socket.MSG_DONTWAIT)
        return True

    def _run(self, host: ModelHost, group: list[tuple[Waiting, Prepared]]) -> None:
        ids = [waiting.id for waiting, _ in group]
        self._running = dict.fromkeys(ids, False)
        started = time.monotonic()
        try:
            if len(group) == 1:
                waiting, prepared = group[0]
                emit = partial(self._emit, waiting.id, at_once=True) if waiting.streams else None
                answers: list[WorkerAnswer | PlatformError] = [host.run(prepared, self._stopped, emit)]
            else:
                answers = host.run_together([prepared for _, prepared in group], self._stopped)
        except Exception as exc:
            self._out += [_failure(request_id, exc) for request_id in ids]
        else:
            self._out += [_reply(request_id, answer) for request_id, answer in zip(ids, answers, strict=True)]
        finally:
            self._running = {}
        if self._max_batch > 1:
            self._read(socket.MSG_DONTWAIT)
            self._ended = time.monotonic()
            self._company = len(group) + len(self._inbox)
            self._quiet = min(GATHER_SHARE * (self._ended - started), GATHER_SECONDS)

    def _stopped(self) -> bool:
        """Whether nobody waits any more for what is being computed."""
        self._read(socket.MSG_DONTWAIT)
        return all(self._running.values())

    # ------------------------------------------------------------------ work that goes step by step

    def _enter(self, steps: Scheduler, waiting: Waiting, prepared: Prepared) -> None:
        emit = partial(self._emit, waiting.id, at_once=False) if waiting.streams else None
        try:
            steps.add(waiting.id, prepared.inputs, prepared.options, emit)
            self._running[waiting.id] = False
            self._options[waiting.id] = prepared.options
        except Exception as exc:
            self._out.append(_failure(waiting.id, failures.engine_failure(exc, "scheduler")))

    def _await_answered(self) -> None:
        """Lets those who were just answered ask again: a moment too late, and they wait for a whole step."""
        wanted = len(self._inbox) + self._answered
        end = time.monotonic() + min(RETURN_SHARE * self._step_seconds, RETURN_SECONDS)
        while len(self._inbox) < wanted and self._more_until(end):
            pass
        self._answered = 0

    def _advance(self, steps: Scheduler) -> None:
        """Lets in who waits, then takes one step with everybody inside."""
        host = self._host
        assert host is not None
        while self._inbox and len(steps) < self._max_batch:
            waiting = self._inbox.first()
            prepared = self._prepared(waiting, host)
            if prepared is not None and not steps.takes(prepared.inputs, prepared.options):
                break  # it goes alone, once those inside have finished: nobody else may pass it
            self._inbox.pop()
            if prepared is not None:
                self._enter(steps, waiting, prepared)
        started = time.monotonic()
        try:
            finished = steps.step()
        except Exception as exc:
            finished = [(request_id, exc) for request_id in self._running]
            for request_id in self._running:
                steps.cancel(request_id)
        for request_id, raw in finished:
            self._running.pop(request_id, None)
            self._out.append(_reply(request_id, host.settled(raw, self._options.pop(request_id, {}))))
        self._answered, self._step_seconds = len(finished), time.monotonic() - started
        if not len(steps):
            self._answered = 0
            self._running, self._options = {}, {}  # those that were cancelled


def _same(left: JsonObject, right: JsonObject) -> bool:
    try:
        return left == right
    except ValueError:
        return False  # arrays do not say


def _reply(request_id: int, answer: WorkerAnswer | PlatformError) -> bytes:
    if isinstance(answer, PlatformError):
        return _failure(request_id, answer)
    try:
        return encode_any(Kind.RESULT, request_id, {"result": answer.result, "warnings": answer.warnings})[0]
    except TypeError as exc:
        return _failure(request_id, EngineError(f"the result is no JSON value, bytes or array: {exc}"))


def _failure(request_id: int, exc: Exception) -> bytes:
    if isinstance(exc, NotImportableError):
        return encode(Kind.ERROR, request_id, {"class": NOT_IMPORTABLE, "message": str(exc)})
    if not isinstance(exc, PlatformError):
        # A mistake of ours: one request fails, the model stays.
        logger.error("request %d failed", request_id, exc_info=exc)
    return encode(Kind.ERROR, request_id, failures.to_json(failures.engine_failure(exc, "worker")))


def main(descriptor: int) -> NoReturn:
    """Runs a worker on an inherited socket."""
    die_with_parent()
    # Ctrl-C in a terminal goes to the whole group; it is the service that decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not get into the output of a script that uses the Python door.
    os.dup2(2, 1)
    serve(socket.socket(fileno=descriptor))


def serve(connection: socket.socket) -> NoReturn:
    """Serves a connection to its end; never returns."""
    WorkerLoop(connection).run()


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent's thread ends, also while it computes in C."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
