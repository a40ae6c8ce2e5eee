"""The fake lakeFS on the command line, in a process of its own."""

import argparse
import signal
import threading
from collections.abc import Sequence

from src.testing.fake_lakefs.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, FakeLakefs


def parser() -> argparse.ArgumentParser:
    """Returns the command line's description."""
    described = argparse.ArgumentParser(
        prog="python -m src.testing.fake_lakefs",
        description="A fake lakeFS server for tests and measurements. What it stores ends with it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = described.add_argument
    option("--host", default="127.0.0.1", help="address to listen at")
    option("--port", type=int, default=8000, help="port to listen at; 0: a free one")
    option("--access-key-id", default=ACCESS_KEY_ID, help="the one user's key")
    option("--secret-access-key", default=SECRET_ACCESS_KEY, help="the one user's secret")
    option("--deletion-seconds", type=float, default=1.0, help="how long a deleted repository is still seen")
    return described


def server_from(arguments: Sequence[str] | None = None) -> FakeLakefs:
    """Builds the server that the command line describes."""
    given = parser().parse_args(arguments)
    return FakeLakefs(
        access_key_id=given.access_key_id,
        secret_access_key=given.secret_access_key,
        host=given.host,
        port=given.port,
        deletion_seconds=given.deletion_seconds,
    )


def main() -> None:
    """Serves until the process is told to end."""
    told_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_end.set())
    with server_from() as server:
        print(f"fake lakeFS listens at {server.url}", flush=True)
        told_to_end.wait()


if __name__ == "__main__":
    main()
