"""The fake Ollama on the command line, in a process of its own."""

import argparse
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace

from src.testing.fake_ollama.models import TINY, FakeModel
from src.testing.fake_ollama.server import FakeOllama


def model_from(text: str) -> FakeModel:
    """Reads `name` or `name=capability,capability`."""
    name, _, capabilities = text.partition("=")
    named = tuple(part.strip() for part in capabilities.split(",") if part.strip())
    # The weights follow the name, so that two models answer differently.
    return replace(TINY, name=name, capabilities=named or TINY.capabilities, weights_digest="")


def parser() -> argparse.ArgumentParser:
    """Returns the command line's description."""
    described = argparse.ArgumentParser(
        prog="python -m src.testing.fake_ollama",
        description="A fake Ollama server for tests and measurements. Answers are functions of the request.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = described.add_argument
    option("--host", default="127.0.0.1", help="address to listen at")
    option("--port", type=int, default=11434, help="port to listen at; 0: a free one")
    option(
        "--model",
        action="append",
        type=model_from,
        metavar="NAME[=CAPABILITY,…]",
        help="a model to hold, instead of `tiny`; may be repeated (seer=completion,vision)",
    )
    option("--parallel", type=int, default=1, help="requests that one model answers at a time")
    option("--max-queue", type=int, default=512, help="requests that may wait; past them: 503")
    option("--max-loaded", type=int, default=3, help="models loaded at once")
    option("--token-delay-ms", type=float, default=0.0, help="time asleep before each token")
    option("--token-cpu-ms", type=float, default=0.0, help="CPU time burnt for each token")
    option("--load-delay-ms", type=float, default=0.0, help="time that loading a model takes")
    option("--answer-tokens", type=int, default=32, help="shortest answer where nothing bounds it")
    return described


def server_from(arguments: Sequence[str] | None = None) -> FakeOllama:
    """Builds the server that the command line describes."""
    given = parser().parse_args(arguments)
    return FakeOllama(
        given.model or (TINY,),
        host=given.host,
        port=given.port,
        parallel=given.parallel,
        max_queue=given.max_queue,
        max_loaded=given.max_loaded,
        token_delay=given.token_delay_ms / 1000,
        token_cpu=given.token_cpu_ms / 1000,
        load_delay=given.load_delay_ms / 1000,
        answer_tokens=given.answer_tokens,
    )


def main() -> None:
    """Serves until the process is told to end."""
    told_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_end.set())
    with server_from() as server:
        print(f"fake Ollama listens at {server.url}", flush=True)
        told_to_end.wait()


if __name__ == "__main__":
    main()
