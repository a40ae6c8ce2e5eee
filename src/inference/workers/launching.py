"""How worker processes come to be: forked from the preloader in milliseconds, or started afresh."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from src.core.config import ROOT

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    # Models are loaded from local folders; nothing here may ask a hub.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # numpy's library would start a thread at import, and the preloader must have none.
    "OPENBLAS_NUM_THREADS": "1",
    # A thread that waits by spinning takes the core from whoever it waits for, once anything else runs here:
    # ten times slower on two cores with two models.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc's defaults give freed tensors back at every step and halve the speed of elementwise work; one mapped for
    # itself is given back whatever the other settings say, and a batch of sixteen pictures made 300 MB of pages anew.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    # Tensors in huge pages, where the system has them on request: each page is made on its first use.
    "THP_MEM_ALLOC_ENABLE": "1",
}
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from {module} import main; main(int(sys.argv[2]){more})"
_POLL_SECONDS = 0.02
_EXIT_SECONDS = 5.0


class LaunchError(Exception):
    """A worker process could not be made this way."""


class WorkerProcess(Protocol):
    """A process that serves one socket."""

    pid: int

    def kill(self) -> None:
        """Ends it at once."""
        ...

    async def exited(self) -> int | None:
        """Waits for its end; returns its return code (negative: the signal), None where it is not known."""
        ...


class FreshProcess:
    """A process of its own interpreter; a child of the service."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        """Ends it at once."""
        if self._process.poll() is None:
            self._process.kill()

    async def exited(self) -> int | None:
        """Polls: end of file on its socket comes a moment before it can be waited for."""
        for _ in range(int(_EXIT_SECONDS / _POLL_SECONDS)):
            if self._process.poll() is not None:
                return self._process.returncode
            await asyncio.sleep(_POLL_SECONDS)
        return None


class ForkedProcess:
    """A process forked by the preloader, which waits for it and reports its end."""

    def __init__(self, pid: int, status: "asyncio.Future[int | None]") -> None:
        self.pid = pid
        self._status = status
        try:
            # The number may be given to another process once ours is gone; the descriptor may not.
            self._descriptor: int | None = os.pidfd_open(pid)
        except (OSError, AttributeError):
            self._descriptor = None

    def kill(self) -> None:
        """Ends it at once."""
        if self._descriptor is None:
            return
        try:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass

    async def exited(self) -> int | None:
        """Waits for the preloader's report."""
        try:
            status = await asyncio.wait_for(asyncio.shield(self._status), _EXIT_SECONDS)
        except TimeoutError:
            return None
        finally:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
        return None if status is None else os.waitstatus_to_exitcode(status)


def start_fresh(connection: socket.socket) -> FreshProcess:
    """Starts an interpreter that serves `connection` (the worker's end)."""
    return FreshProcess(_popen("src.inference.workers.child", connection))


class Preloader:
    """The service's side of the preloader. Lives on one event loop; starts again when it was lost."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[str | None] | None = None
        self._forks: dict[int, asyncio.Future[ForkedProcess]] = {}
        self._exits: dict[int, asyncio.Future[int | None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._imported: set[str] = set()
        self._count = 0
        self.unsafe: str | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._control else None

    @property
    def state(self) -> str:
        """`off`, `starting`, `ready`, or `unsafe`."""
        if self.unsafe:
            return "unsafe"
        if self._control is None or self._ready is None:
            return "off"
        return "ready" if self._ready.done() else "starting"

    def start(self, modules: Sequence[str]) -> None:
        """Starts it in the background, or has it import what is new."""
        if self.unsafe or sys.platform != "linux":
            return
        if self._control is not None:
            self._import(modules)
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = _popen("src.inference.workers.preloader", theirs, list(modules))
        self._control, self._imported = ours, set(modules)
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(ours.fileno(), self._readable)
        logger.info("preloader started", extra={"pid": self._process.pid})

    async def fork(self, connection: socket.socket) -> ForkedProcess:
        """Forks a worker that serves `connection`; raises `LaunchError` where that cannot be."""
        if self._ready is None:
            raise LaunchError("the preloader does not run")
        problem = await asyncio.shield(self._ready)
        if problem is not None:
            raise LaunchError(problem)
        async with self._one_at_a_time:
            if self._control is None:
                raise LaunchError("the preloader ended")
            self._count += 1
            forked: asyncio.Future[ForkedProcess] = asyncio.get_running_loop().create_future()
            self._forks[self._count] = forked
            try:
                socket.send_fds(self._control, [orjson.dumps({"fork": self._count})], [connection.fileno()])
            except OSError as exc:
                raise LaunchError(f"the preloader does not take requests: {exc}") from exc
            return await forked

    async def stop(self) -> None:
        """Ends it, and with it every worker that it forked."""
        if self._process is not None and self._control is not None:
            process = FreshProcess(self._process)
            self._lost("the preloader was stopped")
            process.kill()
            await process.exited()

    def abandon(self) -> None:
        """Closes our end without a word; for a forked copy of the service's process."""
        if self._control is not None:
            os.close(self._control.detach())
            self._control = None

    def _import(self, modules: Sequence[str]) -> None:
        new = [name for name in modules if name not in self._imported]
        if new and self._control is not None:
            self._imported.update(new)
            try:
                self._control.send(orjson.dumps({"import": new}))
            except OSError:
                pass  # it is ending; whoever forks next will see

    def _readable(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            data = control.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received(orjson.loads(data))
        else:
            self._lost("the preloader ended")

    def _received(self, message: dict[str, Any]) -> None:
        if "ready" in message and self._ready is not None and not self._ready.done():
            self.unsafe = message["reason"]
            if self.unsafe:
                logger.warning("forking is not safe here, workers start afresh: %s", self.unsafe)
            self._ready.set_result(self.unsafe)
        elif "forked" in message:
            pid = message["pid"]
            status = self._exits[pid] = asyncio.get_running_loop().create_future()
            fork = self._forks.pop(message["forked"])
            if not fork.done():
                fork.set_result(ForkedProcess(pid, status))
        elif "exited" in message:
            _settle(self._exits.pop(message["exited"], None), message["status"])

    def _lost(self, why: str) -> None:
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control.fileno())
            control.close()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(why)
        for fork in self._forks.values():
            if not fork.done():
                fork.set_exception(LaunchError(why))
        self._forks.clear()
        exits, self._exits = self._exits, {}
        for status in exits.values():
            _settle(status, None)
        if self._process is not None:
            logger.info("%s", why, extra={"pid": self._process.pid})
            asyncio.get_running_loop().create_task(FreshProcess(self._process).exited())


class Launcher:
    """Decides how a worker starts, by the setting `workers.preload`."""

    def __init__(self, preload: str) -> None:
        self._preload = preload
        self.preloader = Preloader()

    def warm(self, modules: Sequence[str]) -> None:
        """Starts the preloader in the background unless the settings say never."""
        if self._preload != "never":
            self.preloader.start(modules)

    async def launch(self, connection: socket.socket, modules: Sequence[str], *, fork: bool = True) -> WorkerProcess:
        """Returns a process that serves `connection`; `modules` are what its engine wants imported.

        `fork=False` for a model that goes onto a GPU: CUDA does not survive a fork.
        """
        if not fork:
            return start_fresh(connection)
        if modules:
            self.warm(modules)
        if self.preloader.state == "ready" or (modules and self.preloader.state == "starting"):
            try:
                return await self.preloader.fork(connection)
            except LaunchError as exc:
                logger.info("a worker starts afresh: %s", exc)
        return start_fresh(connection)


def _settle(future: "asyncio.Future[int | None] | None", value: int | None) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _popen(module: str, connection: socket.socket, *more: list[str]) -> "subprocess.Popen[bytes]":
    # From the loop's own thread: the kernel ends the process with the thread that started it.
    boot = _BOOT.format(module=module, more=", sys.argv[3:]" if more else "")
    return subprocess.Popen(
        [sys.executable, "-P", "-c", boot, str(ROOT), str(connection.fileno()), *(more[0] if more else [])],
        pass_fds=[connection.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**ENVIRONMENT, **os.environ},
    )
