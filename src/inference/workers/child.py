"""The loop of a worker process: one socket to the service, one model, one request at a time.

A thread reads the socket, so that a CANCEL reaches a running generation and the end of the service is
noticed in the middle of one; the main thread computes.
"""

import ctypes
import logging
import os
import queue
import signal
import socket
import sys
import threading
from dataclasses import asdict
from typing import Any, NoReturn

from src.core.errors import CancelledError, EngineError, PlatformError
from src.inference.engines.base import StopFlag
from src.inference.workers import failures
from src.inference.workers.base import LoadSpec
from src.inference.workers.host import ModelHost, NotImportableError, import_class
from src.inference.workers.messages import Decoder, Frame, Kind, ProtocolError, check_hello, encode, hello

logger = logging.getLogger(__name__)

NOT_IMPORTABLE = "NotImportable"
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 18


class WorkerLoop:
    """Serves one connection until the other side closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._stops: dict[int, StopFlag] = {}
        self._host: ModelHost | None = None

    def run(self) -> NoReturn:
        """Reads and answers; never returns."""
        self._socket.sendall(hello())
        threading.Thread(target=self._read, name="aiml-worker-reader", daemon=True).start()
        check_hello(self._frames.get())
        while True:
            frame = self._frames.get()
            self._socket.sendall(self._answer(frame))

    def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := self._socket.recv(_CHUNK):
                for frame in decoder.feed(data):
                    self._sort(frame)
        except (OSError, ProtocolError) as exc:
            logger.debug("connection ended: %s", exc)
        # The service is gone or has let go of us. Nothing here is worth an orderly farewell.
        os._exit(0)

    def _sort(self, frame: Frame) -> None:
        if frame.kind is Kind.CANCEL:
            stop = self._stops.get(frame.id)
            if stop is not None:
                stop.set()
            return
        if frame.kind is Kind.INFER:
            self._stops[frame.id] = StopFlag()
        self._frames.put(frame)

    def _answer(self, frame: Frame) -> bytes:
        try:
            value = self._load(frame) if frame.kind is Kind.LOAD else self._infer(frame)
            return encode(Kind.LOADED if frame.kind is Kind.LOAD else Kind.RESULT, frame.id, value)
        except NotImportableError as exc:
            return encode(Kind.ERROR, frame.id, {"class": NOT_IMPORTABLE, "message": str(exc)})
        except PlatformError as exc:
            return encode(Kind.ERROR, frame.id, failures.to_json(exc))
        except Exception as exc:
            # A result that is no JSON value, or a mistake of ours: one request fails, the model stays.
            logger.exception("request %d failed", frame.id)
            return encode(Kind.ERROR, frame.id, failures.to_json(failures.engine_failure(exc, "worker")))

    def _load(self, frame: Frame) -> Any:
        value = frame.json()
        for entry in value["import_path"]:
            if entry not in sys.path:
                sys.path.append(entry)
        spec = LoadSpec(**value["spec"])
        self._host = ModelHost(spec, import_class(spec.engine), import_class(spec.handler))
        return asdict(self._host.load())

    def _infer(self, frame: Frame) -> Any:
        stop = self._stops[frame.id]
        try:
            if stop():
                raise CancelledError("the caller went away before its turn")
            if self._host is None:
                raise EngineError("no model is loaded in this worker")
            value = frame.json()
            answer = self._host.infer(value["data"], value["options"], stop)
            return {"result": answer.result, "warnings": answer.warnings}
        finally:
            del self._stops[frame.id]


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


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent's thread ends, also while it computes in C."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
