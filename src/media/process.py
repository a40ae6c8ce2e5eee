"""The service's side of one decoder process: starts it, hands it one job at a time, sees it end."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from src.core.config import ROOT
from src.core.settings_sections import MediaSettings
from src.media import wire

START_SECONDS = 60.0
_EXIT_SECONDS, _LEAVING_SECONDS = 5.0, 1.0
_POLL_SECONDS = 0.01
_LAST_WORDS = 2000  # bytes
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from src.media.child import main; main({arguments})"
_ARGUMENTS = "int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Pages of pictures go back to the system when they are freed, so that an idle process is small.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_ARENA_MAX": "1",
}

Reply = tuple[dict[str, Any], list[int]]
"""A message, and the descriptors that came with it."""


class ProcessEndedError(Exception):
    """The process ended without an answer; the text says how."""


class DecoderProcess:
    """One decoder process. Lives on the event loop, and dies with the thread, that started it."""

    def __init__(self, settings: MediaSettings, modules: Sequence[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._inbox = wire.Inbox()
        self._answer: asyncio.Future[Reply] | None = None
        self.holds: dict[str, str] = {}
        self.ended = False
        with theirs:
            self._process = _popen(theirs, self._log, modules)
        self.pid = self._process.pid
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)
        ours.send(wire.encode(settings.model_dump()))

    async def started(self) -> None:
        """Waits for its hello; raises `ProcessEndedError` where it does not come."""
        try:
            async with asyncio.timeout(START_SECONDS):
                hello, _ = await self._next()
        except TimeoutError as exc:
            raise ProcessEndedError(f"it did not start within {START_SECONDS:g} s") from exc
        self.holds = hello["holds"]

    async def ask(self, request: dict[str, Any], descriptor: int) -> Reply:
        """Returns its answer to a job; the descriptors in it belong to the caller. Raises `ProcessEndedError`."""
        try:
            socket.send_fds(self._socket, [wire.encode(request)], [descriptor])
        except OSError as exc:
            self._end()
            raise ProcessEndedError(await self._how_it_ended()) from exc
        return await self._next()

    def kill(self) -> None:
        """Ends it at once."""
        self._end()
        if self._process.poll() is None:
            self._process.kill()

    async def gone(self) -> None:
        """Ends it, and waits until the kernel has taken its memory back."""
        self.kill()
        await self._exited(_EXIT_SECONDS)
        self._log.close()

    def abandon(self) -> None:
        """Closes our end without a word; for a forked copy of the service's process."""
        self.ended = True
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())

    async def _next(self) -> Reply:
        if self.ended:
            raise ProcessEndedError(await self._how_it_ended())
        self._answer = asyncio.get_running_loop().create_future()
        try:
            return await self._answer
        except ProcessEndedError:
            raise ProcessEndedError(await self._how_it_ended()) from None
        finally:
            self._answer = None

    def _readable(self) -> None:
        try:
            alive = self._inbox.receive(self._socket)
            message = self._inbox.message()
        except BlockingIOError:
            return
        except (OSError, wire.BrokenMessageError):
            alive, message = False, None
        if message is not None and self._answer is not None and not self._answer.done():
            descriptors, self._inbox.descriptors = self._inbox.descriptors, []
            self._answer.set_result((message, descriptors))
            if not self._inbox.is_empty:
                self._end()  # what it says further was meant for somebody else's job
        elif message is not None or not alive:
            self._end()  # it has ended, or speaks unasked; the kernel has its exit status in a moment

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        for descriptor in self._inbox.descriptors:
            os.close(descriptor)
        self._inbox.descriptors = []
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ProcessEndedError())

    async def _how_it_ended(self) -> str:
        status = await self._exited(_LEAVING_SECONDS)
        if self._log.closed:
            return "it was ended"
        # It may have written a lot.
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_WORDS))
        last = self._log.read(_LAST_WORDS).decode(errors="replace").strip().rpartition("\n")[2]
        how = "it broke off" if status is None else _status_in_words(status)
        return f"{how}: {last}" if last else how

    async def _exited(self, seconds: float) -> int | None:
        """Polls: the end of its stream comes a moment before it can be waited for."""
        for _ in range(int(seconds / _POLL_SECONDS)):
            if self._process.poll() is not None:
                return self._process.returncode
            await asyncio.sleep(_POLL_SECONDS)
        return None


def _status_in_words(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _popen(connection: socket.socket, log: Any, modules: Sequence[str]) -> "subprocess.Popen[bytes]":
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    boot = _BOOT.format(arguments=_ARGUMENTS)
    descriptor = connection.fileno()
    return subprocess.Popen(
        [sys.executable, "-P", "-c", boot, str(ROOT), str(descriptor), str(os.getpid()), *modules],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**kept, **_ENVIRONMENT},
    )
