"""The fake hub on the command line, in a process of its own."""

import argparse
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.testing.fake_hub.repos import FakeRepo, Kind
from src.testing.fake_hub.server import FakeHub


def repos_in(folder: Path) -> list[FakeRepo]:
    """Returns the repositories below a folder: `models/<org>/<name>/…`, `datasets/…`.

    The organization may be missing: a folder that holds a file is a repository.
    """
    kinds: tuple[Kind, ...] = ("model", "dataset")
    return [
        FakeRepo.from_folder(path.relative_to(folder / f"{kind}s").as_posix(), path, kind=kind)
        for kind in kinds
        for path in _repo_folders(folder / f"{kind}s")
    ]


def _repo_folders(folder: Path) -> Iterator[Path]:
    for first in sorted(path for path in folder.glob("*") if path.is_dir()):
        if any(path.is_file() for path in first.iterdir()):
            yield first
        else:
            yield from sorted(path for path in first.iterdir() if path.is_dir())


def parser() -> argparse.ArgumentParser:
    """Returns the command line's description."""
    described = argparse.ArgumentParser(
        prog="python -m src.testing.fake_hub",
        description="A fake Hugging Face hub for tests and measurements; use it with HF_ENDPOINT.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = described.add_argument
    option("--folder", type=Path, required=True, help="holds models/<org>/<name>/… and datasets/<org>/<name>/…")
    option("--host", default="127.0.0.1", help="address to listen at")
    option("--port", type=int, default=8090, help="port to listen at; 0: a free one")
    option("--token", action="append", default=[], help="a token to accept; may be repeated")
    option("--cut-after", type=int, metavar="BYTES", help="cut answers with more content than this")
    option("--cuts", type=int, default=1, help="how many answers to cut")
    option("--unavailable", type=int, default=0, metavar="N", help="answer the first N requests with 503")
    option("--flip", action="append", default=[], metavar="FILE", help="send one byte of FILE changed, once")
    option("--bytes-per-second", type=float, help="pace of each answer")
    return described


def server_from(arguments: Sequence[str] | None = None) -> FakeHub:
    """Builds the server that the command line describes."""
    given = parser().parse_args(arguments)
    hub = FakeHub(repos_in(given.folder), host=given.host, port=given.port, tokens=tuple(given.token))
    if given.cut_after is not None:
        hub.faults.cut(given.cut_after, times=given.cuts)
    if given.unavailable:
        hub.faults.unavailable(times=given.unavailable)
    for file in given.flip:
        hub.faults.flip(file)
    hub.faults.slow(given.bytes_per_second)
    return hub


def main() -> None:
    """Serves until the process is told to end."""
    told_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_end.set())
    with server_from() as hub:
        print(f"fake hub listens at {hub.url}", flush=True)
        told_to_end.wait()


if __name__ == "__main__":
    main()
