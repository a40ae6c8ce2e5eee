"""W1: a no-op task with everything on, against FastAPI with a typed body and an annotated answer."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Unit
from benchmarks.comparing import Pair, interleaved
from benchmarks.peers.catalogue import Peer, serving_task
from benchmarks.registering import register
from benchmarks.serving import Server, free_port, ours, serving, worker_environment

BODY = {"task": "noop", "engine": "noop", "model_name": "noop", "data": {"inputs": "Hello"}, "options": {}}
PATH = "/inference/infer"
CONCURRENCIES = (1, 32)
RATE = "requests_per_second"
_WARMUP = 0.5


def units(bench: Bench) -> list[Unit]:
    """Returns the service and the peers."""
    return [
        Unit("ours", _seconds(bench) + 4, partial(_ours, bench)),
        *(
            Unit(peer.title, _seconds(bench.shorter()) + peer.start_seconds, partial(_peer, bench.shorter(), peer))
            for peer in serving_task(bench, "noop")
        ),
    ]


def _seconds(bench: Bench) -> float:
    return bench.rounds * 2 * len(CONCURRENCIES) * (bench.seconds + _WARMUP + 0.4)


def register_noop(server: Server, folder: Path) -> None:
    """Registers a model for the no-op engine, so that the registry and provenance are in use."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    register(server, "noop", folder, "noop", "noop")


def _ours(bench: Bench) -> dict[str, Any]:
    with ours(bench.fresh("w1"), "benchmarks.servers.ours") as server:
        register_noop(server, bench.folder / "noop")
        answer = server.post(PATH, BODY)
        if answer.get("result") != {"echo": "Hello"} or answer["provenance"]["version"] != "1":
            raise RuntimeError(f"not the answer that was to be: {answer}")
        return _beside_typed(bench, server, PATH, BODY)


def _peer(bench: Bench, peer: Peer) -> dict[str, Any]:
    call = peer.call("noop", "Hello")
    with peer.running("noop", bench) as server:
        peer.check(server, call, "Hello")
        return {"version": peer.version, **_beside_typed(bench, server, call.path, call.body)}


def _beside_typed(bench: Bench, server: Server, path: str, body: Any) -> dict[str, Any]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.servers.typed_fastapi", str(port)]
    with serving(command, port, "/openapi.json", worker_environment()) as typed:

        def pair(concurrency: int) -> Pair:
            plan = {"concurrency": concurrency, "seconds": bench.seconds, "warmup": _WARMUP}
            return Pair(lambda: server.load(path, [body], **plan), RATE, lambda: typed.load(PATH, [BODY], **plan))

        return interleaved({f"c{concurrency}": pair(concurrency) for concurrency in CONCURRENCIES}, bench.rounds)
