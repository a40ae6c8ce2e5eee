"""The loop of a worker process: one socket to the service, one model, one thread.

While the model is idle the loop waits on the socket; while it computes, the engine's own question
whether to stop (`stop_requested`) reads the socket, so that a CANCEL arrives within one step. Requests
that came in meanwhile are taken together, where the engine can.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict
from typing import Any, NoReturn

from src.core.errors import CancelledError, EngineError, PlatformError
from src.inference.types import JsonObject
from src.inference.workers import failures
from src.inference.workers.base import LoadSpec, WorkerAnswer
from src.inference.workers.host import ModelHost, NotImportableError, import_class
from src.inference.workers.messages import Decoder, Frame, Kind, ProtocolError, check_hello, encode, encode_any, hello

logger = logging.getLogger(__name__)

NOT_IMPORTABLE = "NotImportable"
LINGER_SECONDS = 0.0002
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 18


class WorkerLoop:
    """Serves one connection until the other side closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder = Decoder()
        self._inbox: deque[Frame] = deque()
        self._cancelled: set[int] = set()
        self._host: ModelHost | None = None
        self._max_batch = 1
        # On a single core whoever lingers keeps the service from making the next request.
        self._linger_seconds = LINGER_SECONDS if cores() > 1 else 0.0

    def run(self) -> NoReturn:
        """Reads and answers; never returns."""
        self._socket.sendall(hello())
        check_hello(self._next())
        while True:
            frame = self._next()
            replies = self._load(frame) if frame.kind is Kind.LOAD else self._infer(frame)
            self._socket.sendall(replies)

    def _next(self) -> Frame:
        if self._inbox:
            self._read(socket.MSG_DONTWAIT)  # what came while the last one was computed may join its neighbours
        self._linger()
        while not self._inbox:
            self._read()
        return self._inbox.popleft()

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
        if frame.kind is Kind.CANCEL:
            self._cancelled.add(frame.id)
        else:
            self._inbox.append(frame)

    # ------------------------------------------------------------------ work

    def _load(self, frame: Frame) -> bytes:
        try:
            value = frame.value()
            for entry in value["import_path"]:
                if entry not in sys.path:
                    sys.path.append(entry)
            spec = LoadSpec(**value["spec"])
            self._host = ModelHost(spec, import_class(spec.engine), import_class(spec.handler))
            report = asdict(self._host.load())
            self._max_batch = value["max_batch_size"] if self._host.batches else 1
            return encode(Kind.LOADED, frame.id, report)
        except Exception as exc:
            return _failure(frame.id, exc)

    def _infer(self, first: Frame) -> bytes:
        frames, requests = self._batch(first)
        if not frames:
            return _failure(first.id, CancelledError("the caller went away before its turn"))
        ids = [frame.id for frame in frames]
        try:
            if self._host is None:
                raise EngineError("no model is loaded in this worker")
            if len(requests) == 1:
                data, options = requests[0]
                answers: list[WorkerAnswer | PlatformError] = [
                    self._host.infer(data, options, lambda: self._stopped(ids))
                ]
            else:
                datas = [data for data, _ in requests]
                answers = self._host.infer_batch(datas, requests[0][1], lambda: self._stopped(ids))
        except Exception as exc:
            return b"".join(_failure(request_id, exc) for request_id in ids)
        finally:
            # Requests come in the order of their ids: nothing up to here can still be cancelled.
            self._cancelled = {request_id for request_id in self._cancelled if request_id > ids[-1]}
        return b"".join(_reply(request_id, answer) for request_id, answer in zip(ids, answers, strict=True))

    def _batch(self, first: Frame) -> tuple[list[Frame], list[tuple[Any, JsonObject]]]:
        """Returns the request, with those behind it that have the same options, as many as the engine takes."""
        frames: list[Frame] = []
        requests: list[tuple[Any, JsonObject]] = []
        frame: Frame | None = first
        while frame is not None:
            if frame.id in self._cancelled:
                self._cancelled.discard(frame.id)
            else:
                value = frame.value()
                if requests and not _same(value["options"], requests[0][1]):
                    self._inbox.appendleft(frame)
                    break
                frames.append(frame)
                requests.append((value["data"], value["options"]))
            if len(frames) >= self._max_batch or not self._inbox or self._inbox[0].kind is not Kind.INFER:
                break
            frame = self._inbox.popleft()
        return frames, requests

    def _stopped(self, ids: list[int]) -> bool:
        """Whether nobody waits any more for what is being computed."""
        self._read(socket.MSG_DONTWAIT)
        return self._cancelled.issuperset(ids)


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
