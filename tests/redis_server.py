"""A real Redis for tests, on a free port of 127.0.0.1, without anything on disk."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import running


def redis_url(port: int, password: str = "") -> str:
    """Returns the address of a server that was started here."""
    return f"redis://:{password}@127.0.0.1:{port}/0" if password else f"redis://127.0.0.1:{port}/0"


@contextmanager
def redis_server(folder: Path, port: int, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a Redis until the block ends; `settings` are more of its arguments."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running([*command, *settings], ready=lambda: _answers(port), log=folder / "redis.log", cwd=folder) as process:
        yield process


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) in (b"+PONG", b"-NOAU")
    except OSError:
        return False
