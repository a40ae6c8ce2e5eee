"""A decoder process: takes one job at a time from its socket, answers with arrays in shared memory.

Everything it needs is imported before it confines itself; then it says hello with what holds.
"""

import importlib
import io
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import orjson

from src.core.config import ROOT
from src.core.errors import PayloadTooLargeError, PlatformError
from src.core.settings_sections import MediaSettings
from src.media import audio, document, image, sandbox, video, wire
from src.media.content import PositionedReader, write_arrays
from src.media.detection import details
from src.media.job import Answer, Job, unusable
from src.media.wishes import from_json

logger = logging.getLogger(__name__)

JOBS = 500
"""A process ends after so many: what a library leaks stays small."""
_READ_AT_ONCE = 1 << 16
Decoders = dict[str, Callable[[Job], Answer]]
"""Kind → what decodes it."""


def main(descriptor: int, parent: int, modules: Sequence[str]) -> NoReturn:
    """Serves the socket until the other side closes it. `modules` may change the decoders, by their `install`."""
    sandbox.end_with_parent(parent)
    connection = socket.socket(fileno=descriptor)
    inbox = wire.Inbox()
    settings = MediaSettings(**_next(connection, inbox))
    decoders: Decoders = {
        "image": image.decode,
        "audio": audio.decode,
        "video": video.decode,
        "document": document.decode,
    }
    image.prepare()
    more = [importlib.import_module(name) for name in modules]
    for module in more:
        module.install(decoders)
    holds = sandbox.confine(_readable(more), settings.memory_mb << 20)
    connection.sendall(wire.encode({"holds": holds}))
    for done in range(1, JOBS + 1):
        request = _next(connection, inbox)
        reply, files = _answer(decoders, request, inbox.descriptors.pop(0), settings)
        last = reply.pop("last", False) or done == JOBS
        socket.send_fds(connection, [wire.encode({**reply, "last": last})], files)
        for file in files:
            os.close(file)
        if last:
            break
    os._exit(0)


def _next(connection: socket.socket, inbox: wire.Inbox) -> Any:
    while (message := inbox.message()) is None:
        if not inbox.receive(connection):
            os._exit(0)
    return message


def _answer(
    decoders: Decoders, request: dict[str, Any], descriptor: int, settings: MediaSettings
) -> tuple[dict[str, Any], list[int]]:
    kind, found, field = request["kind"], request["type"], request["field"]
    try:
        sandbox.limit_cpu(request["seconds"])
        with io.BufferedReader(PositionedReader(descriptor, request["size"]), _READ_AT_ONCE) as source:
            wishes = from_json(kind, request["wishes"])
            arrays, facts = decoders[kind](Job(source, kind, found, field, wishes, settings))
        return _written(arrays, {"warnings": [], **facts, "type": found})
    except PlatformError as exc:
        return _told(exc), []
    except MemoryError:
        # What is left of this process may lack memory for the next job too.
        problem = f"needs more than {settings.memory_mb} MB to decode (media.memory_mb): send a smaller one"
        error = PayloadTooLargeError(f"`{field}` ({found}) {problem}", details=details(field, found, kind))
        return {**_told(error), "last": True}, []
    except Exception as exc:
        logger.warning("a decoder failed", exc_info=True)
        return _told(unusable(kind, found, field, f"cannot be decoded: {str(exc)[:500] or type(exc).__name__}")), []
    finally:
        os.close(descriptor)


def _written(arrays: Sequence[Any], facts: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    # The facts of a document are all its words: they are written beside the arrays, as bytes.
    words = np.frombuffer(orjson.dumps(facts), np.uint8)
    try:
        descriptor, places = write_arrays([*arrays, words])
    except OSError as exc:
        raise MemoryError from exc  # files of this process are bounded like its memory
    return {"places": places}, [descriptor]


def _told(error: PlatformError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": error.message, "details": error.details}


def _readable(modules: Sequence[ModuleType]) -> list[Path]:
    return [ROOT / "src", *(Path(module.__file__).parent for module in modules if module.__file__)]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
