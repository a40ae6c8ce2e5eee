"""The preloader: a small single-threaded process that has the libraries imported and forks workers.

It runs no tensor operation itself: one parallel operation here would leave every child with a thread
pool whose threads do not exist, and hang it without an error. A trial child proves at the start that
forking is safe. Messages on the control socket (SOCK_SEQPACKET) are JSON objects:

    service → preloader   {"fork": n} with the worker's socket attached · {"import": [module, …]}
    preloader → service   {"ready": bool, "reason": str | null} · {"forked": n, "pid": pid}
                          {"exited": pid, "status": wait status}
"""

import gc
import importlib
import logging
import os
import select
import signal
import socket
import time
from typing import Any, NoReturn

import orjson

from src.inference.workers.child import die_with_parent, serve

logger = logging.getLogger(__name__)

TRIAL_SECONDS = 10.0
_MESSAGE = 1 << 16


class PreloadServer:
    """The preloader's loop."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    def run(self, modules: list[str]) -> NoReturn:
        """Imports, proves that forking is safe, and forks until the service is gone."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        import_modules(modules)
        # What is alive now is shared with every child: a collection there must not touch, and so copy, it.
        gc.collect()
        gc.freeze()
        problem = trial()
        self._tell({"ready": problem is None, "reason": problem})
        while True:
            readable, _, _ = select.select([self._control.fileno(), self._woken], [], [])
            if self._woken in readable:
                self._reap()
            if self._control.fileno() in readable:
                self._obey()

    def _obey(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 1)
        except InterruptedError:
            return
        except OSError:
            data, descriptors = b"", []  # a reset is an end of file too
        if not data:
            os._exit(0)  # the children end with their parent
        message = orjson.loads(data)
        if "import" in message:
            import_modules(message["import"])
            gc.collect()
            gc.freeze()
        elif descriptors:
            pid = self._fork(descriptors[0])
            os.close(descriptors[0])  # a stray copy of a child's end would hide its death
            self._children.add(pid)
            self._tell({"forked": message["fork"], "pid": pid})

    def _fork(self, descriptor: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            self._become_worker(descriptor)
        finally:
            os._exit(1)  # never back into this stack

    def _become_worker(self, descriptor: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self._woken, self._wake):
            os.close(end)
        self._control.close()
        die_with_parent()
        os.setsid()
        reseed()
        serve(socket.socket(fileno=descriptor))

    def _reap(self) -> None:
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            pass
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            self._tell({"exited": pid, "status": status})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(orjson.dumps(message))
        except OSError:
            os._exit(0)


def import_modules(names: list[str]) -> None:
    """Imports what can be imported; a model whose code is missing tells so itself when it loads."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as exc:
            logger.warning("preloader: %s is not imported: %s", name, exc)


def trial() -> str | None:
    """Forks a child that computes in parallel; returns what went wrong, None when forking is safe."""
    pid = os.fork()
    if pid == 0:
        try:
            import torch

            torch.set_num_threads(2)
            square = torch.ones(512, 512)
            os._exit(0 if float((square @ square)[0, 0]) == 512.0 else 2)
        finally:
            os._exit(3)
    deadline = time.monotonic() + TRIAL_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return None if status == 0 else f"the trial child ended with {status}"
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"the trial child hung for {TRIAL_SECONDS:g} s"


def reseed() -> None:
    """Gives a child random numbers of its own: its libraries share their state with all its siblings."""
    import random

    import numpy
    import torch

    seed = int.from_bytes(os.urandom(4), "big")
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def main(descriptor: int, modules: list[str]) -> NoReturn:
    """Runs the preloader on an inherited control socket."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    PreloadServer(socket.socket(fileno=descriptor)).run(modules)
