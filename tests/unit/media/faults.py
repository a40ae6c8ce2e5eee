"""Decoder processes that fail on command: a PNG of `FAULT` and a word crashes, hangs, or eats memory.

A test has the processes import this: `DecoderPool(settings, modules=(faults.__name__,))`.
"""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from src.media.child import Decoders
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
    return _told(_FAULTS[name](argument))


def _told(facts: Any) -> Answer:
    return [np.zeros((1, 1, 3), np.uint8)], {"warnings": [str(facts)]}


def _crash(_: str) -> Any:
    os.abort()


def _leave(_: str) -> Any:
    sys.stderr.write("the library gave up\n")
    sys.stderr.flush()
    os._exit(3)


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


def _attempt(work: str) -> Any:
    """Tells what the system said to something that a decoder has no business with."""
    try:
        _ATTEMPTS[work]()
    except OSError as exc:
        return type(exc).__name__
    return "allowed"


_FAULTS = {
    "crash": _crash,
    "leave": _leave,
    "hang": _hang,
    "spin": _spin,
    "eat": _eat,
    "fail": _fail,
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
