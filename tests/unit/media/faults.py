"""Decoder processes that fail on command: a PNG of `FAULT` and a word crashes, hangs, eats memory, or talks rubbish.

A test has the processes import this: `DecoderPool(settings, modules=(faults.__name__,))`.
"""

import ctypes
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from src.media import wire
from src.media.child import Decoders
from src.media.content import new_file
from src.media.job import Answer, Job

_PNG = b"\x89PNG\r\n\x1a\n"
_MARK = _PNG + b"FAULT "


def file(fault: str) -> bytes:
    """Returns a file that makes a decoder process fail so."""
    return _MARK + fault.encode()


def _fault(job: Job) -> Answer | None:
    head = job.source.read(200)
    job.source.seek(0)
    if not head.startswith(_MARK):
        return None
    name, _, argument = head[len(_MARK) :].decode().partition(" ")
    if name == "misfit":
        return [np.zeros(5, np.float32)], {}
    return _told(_FAULTS[name](argument))


def _told(facts: Any) -> Answer:
    return [np.zeros((1, 1, 3), np.uint8)], {"warnings": [str(facts)]}


def _crash(_: str) -> Any:
    os.abort()


def _leave(_: str) -> Any:
    sys.stderr.write("the library gave up\n")
    sys.stderr.flush()
    os._exit(3)


def _segfault(_: str) -> Any:
    ctypes.string_at(0)


def _hang(seconds: str) -> Any:
    time.sleep(float(seconds or 600))


def _spin(_: str) -> Any:
    while True:
        pass


def _eat(_: str) -> Any:
    held = []
    while True:
        held.append(np.ones(1 << 24, np.uint8))


def _fail(text: str) -> Any:
    raise RuntimeError(text)


def _shout(megabytes: str) -> Any:
    """Fills its log before it crashes."""
    for _ in range(int(megabytes)):
        os.write(2, b"garbage\n" * 125_000)
    os.abort()


def _multiply(_: str) -> Any:
    """Tries to become many processes."""
    refused = 0
    for _attempt_number in range(1000):
        try:
            if os.fork() == 0:
                _multiply("")
        except OSError:
            refused += 1
    return f"{refused} of 1000 forks were refused"


def _say(rubbish: str) -> Any:
    """Answers the service past its own program, as one that was taken over does; the rest is silence."""
    with socket.socket(fileno=os.dup(int(sys.argv[2]))) as service:
        _RUBBISH[rubbish](service)
        time.sleep(600)


def _places(service: socket.socket, **place: Any) -> None:
    memory = new_file()
    os.write(memory, bytes(300))
    facts = {"dtype": "|u1", "shape": [2], "offset": 0}
    places = [{"dtype": "|u1", "shape": [10, 10, 3], "offset": 0, **place}, facts]
    socket.send_fds(service, [wire.encode({"places": places, "last": False})], [memory])


def _descriptors(service: socket.socket) -> None:
    """Sends descriptors without end, beside a message that never does."""
    service.sendall(wire.LENGTH.pack(1 << 19))
    while True:
        socket.send_fds(service, [b"x"], [service.fileno()] * wire.MAX_DESCRIPTORS)


_RUBBISH = {
    "length": lambda service: service.sendall(b"\xff" * 100),
    "text": lambda service: service.sendall(wire.LENGTH.pack(4) + b"{{{{"),
    "list": lambda service: service.sendall(wire.encode([1, 2, 3])),
    "number": lambda service: service.sendall(wire.encode(7)),
    "nothing": lambda service: service.sendall(wire.encode({})),
    "error": lambda service: service.sendall(wire.encode({"error": "SystemExit", "message": 1, "details": 2})),
    "details": lambda service: service.sendall(
        wire.encode({"error": "InvalidInputError", "message": ["x"], "details": 2})
    ),
    "far": lambda service: _places(service, offset=1 << 62),
    "large": lambda service: _places(service, shape=[1 << 40, 1 << 40]),
    "shape": lambda service: _places(service, shape=[{}]),
    "kind": lambda service: _places(service, dtype="|O8"),
    "facts": _places,
    "descriptors": _descriptors,
}
"""What it is called → how it is said."""
RUBBISH = tuple(_RUBBISH)


def _attempt(work: str) -> Any:
    """Tells what the system said to something that a decoder has no business with."""
    try:
        _ATTEMPTS[work]()
    except OSError as exc:
        return type(exc).__name__
    return "allowed"


_FAULTS = {
    "crash": _crash,
    "segfault": _segfault,
    "leave": _leave,
    "hang": _hang,
    "spin": _spin,
    "eat": _eat,
    "fail": _fail,
    "shout": _shout,
    "multiply": _multiply,
    "say": _say,
    "attempt": _attempt,
}
_ATTEMPTS = {
    "socket": lambda: socket.socket().close(),
    "read": lambda: Path("/etc/passwd").read_bytes(),
    "write": lambda: Path("/tmp/aiml-decoder-was-here").write_bytes(b""),
    "run": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "signal": lambda: os.kill(os.getppid(), 0),
    "remove": lambda: Path(__file__).unlink(),
}


def install(decoders: Decoders) -> None:
    """Puts the faults before the decoder of images; called in the process."""
    real = decoders["image"]
    decoders["image"] = lambda job: _fault(job) or real(job)
