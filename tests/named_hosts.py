"""Servers on 127.0.0.1 reached under another name, as from one container of Compose to another."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MLFLOW_HOST = "mlflow.internal"

_PATCH = """
import socket
_resolve = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    return _resolve("127.0.0.1" if host == {name!r} else host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


@contextmanager
def resolved_here(name: str = MLFLOW_HOST) -> Iterator[None]:
    """Makes a name mean 127.0.0.1 in this process."""
    before = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        return before("127.0.0.1" if host == name else host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = before


def resolved_in(folder: Path, name: str = MLFLOW_HOST) -> dict[str, str]:
    """Returns the environment of a Python process in which a name means 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_PATCH.format(name=name))
    return {"PYTHONPATH": str(folder)}
