"""Work on strangers' bytes in a child process of its own: limited memory, no secrets, ended with us.

The parent calls `run_confined`; the child's module ends in `if __name__ == "__main__": serve(work)`. They speak
JSON: one request on the child's standard input, then one message per line on its output; the last one holds
`result` or `error`.
"""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from src.core import errors
from src.core.errors import PlatformError

JsonObject = dict[str, Any]
Work = Callable[[JsonObject, Callable[[JsonObject], None]], JsonObject]
"""What a child does: request, and a way to send messages meanwhile → result."""

_ROOT = Path(__file__).resolve().parents[3]
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h


class ConfinedDiedError(Exception):
    """The child ended, or was ended, without an answer; the text says how."""


def run_confined(
    module: str, request: JsonObject, heard: Callable[[JsonObject], None], *, silent_seconds: float
) -> JsonObject:
    """Runs a module on a request and returns its result; `heard` gets its messages, and may raise to break it off.

    Raises the platform's error that the child met; `ConfinedDiedError` where it died, or was silent for too long.
    """
    with tempfile.TemporaryFile() as log, _started(module, log) as child:
        try:
            _send_request(child, request)
            for message in _messages(child, silent_seconds):
                if "result" in message:
                    result: JsonObject = message["result"]
                    return result
                if "error" in message:
                    raise _error(message)
                heard(message)
            raise ConfinedDiedError(_how_it_ended(child, log))
        finally:
            child.kill()


def serve(work: Work) -> None:
    """Answers the one request of the parent, in the child."""
    _end_with_parent()
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no message

    def send(message: JsonObject) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        send({"result": work(json.load(sys.stdin), send)})
    except PlatformError as exc:
        send({"error": type(exc).__name__, "message": exc.message, "details": exc.details})


def limit_memory(more: int) -> None:
    """Lets this process take `more` bytes above what it has now; what is mapped for reading does not count.

    May be called again, for the next piece of work.
    """
    if sys.platform == "linux":  # elsewhere the limit is not enforced, or counts something else
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + more, hard))


def limit_files(size: int) -> None:
    """Lets this process write files of at most `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _started(module: str, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=_ROOT,
        env={**kept, **_ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _send_request(child: "subprocess.Popen[bytes]", request: JsonObject) -> None:
    stdin, child.stdin = child.stdin, None
    assert stdin is not None
    try:
        with stdin:
            stdin.write(json.dumps(request).encode())
    except BrokenPipeError:
        pass  # how it ended is told where its answer is missing


def _messages(child: "subprocess.Popen[bytes]", silent_seconds: float) -> Iterator[JsonObject]:
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    ready = select.poll()  # select() takes no descriptor above 1023
    ready.register(descriptor, select.POLLIN)
    pending = b""
    heard_at = time.monotonic()
    while True:
        left = heard_at + silent_seconds - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise ConfinedDiedError(f"nothing was heard of it for {silent_seconds:g} s")
        data = os.read(descriptor, 65536)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        yield from map(json.loads, lines)
        heard_at = time.monotonic()


def _error(message: JsonObject) -> PlatformError:
    kind = getattr(errors, message["error"], errors.EngineError)
    error: PlatformError = kind(message["message"], details=message["details"])
    return error


def _how_it_ended(child: "subprocess.Popen[bytes]", log: IO[bytes]) -> str:
    status = child.wait()
    log.seek(0)
    last = log.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2]
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"{how}: {last}" if last else how


def _end_with_parent() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
