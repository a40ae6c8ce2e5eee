"""W4: start to the first healthy answer, and memory of a service that does nothing; a bare import of FastAPI."""

import subprocess
import sys
import time
from functools import partial
from typing import Any

from benchmarks.bench import Bench, Unit
from benchmarks.comparing import medians
from benchmarks.machine import family, pss
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.serving import Server, ours
from benchmarks.workloads.w1 import register_noop

MB = 1_000_000
STARTS = 5
_PEER_STARTS = 3
_LONG = 8.0
"""Seconds of a start above which it is not repeated."""
_SETTLES = 1.0
_IMPORT = "import fastapi; print(open('/proc/self/smaps_rollup').read().split('Pss:')[1].split()[0])"


def units(bench: Bench) -> list[Unit]:
    """Returns the limit, the service and the peers."""
    return [
        Unit("import fastapi", 3, _import_fastapi),
        Unit("ours", 20, partial(_ours, bench)),
        *(
            Unit(peer.title, _PEER_STARTS * (peer.start_seconds / 2 + 2), partial(_peer, bench, peer))
            for peer in (PEERS if bench.peers else ())
            if not peer.environment
        ),
    ]


def _import_fastapi() -> dict[str, Any]:
    rows = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
        rows.append({"seconds": time.perf_counter() - started, "mb": int(done.stdout) * 1024 / MB})
    return {"rounds": rows, **medians(rows)}


def _ours(bench: Bench) -> dict[str, Any]:
    data_dir, starts = bench.fresh("w4"), []
    with ours(data_dir, "benchmarks.servers.ours") as server:
        register_noop(server, bench.folder / "noop")
    for _ in range(STARTS):
        with ours(data_dir) as server:
            starts.append({"healthy_after_seconds": server.healthy_after, "gateway_mb": pss(server.process.pid) / MB})
    with ours(data_dir) as server:
        while server.get("/inference/health")["dependencies"]["mlflow"]["status"] == "starting":
            time.sleep(0.2)
        time.sleep(_SETTLES)
        in_use = {"gateway_mb_registry_in_use": pss(server.process.pid) / MB, "everything_mb": _everything(server)}
    return {"rounds": starts, **medians(starts), **in_use}


def _peer(bench: Bench, peer: Peer) -> dict[str, Any]:
    task = "noop" if "noop" in peer.tasks else next(iter(peer.tasks))
    starts: list[dict[str, Any]] = []
    while len(starts) < _PEER_STARTS and not (starts and starts[0]["healthy_after_seconds"] > _LONG):
        with peer.running(task, bench) as server:
            time.sleep(_SETTLES)
            starts.append({"healthy_after_seconds": server.healthy_after, "everything_mb": _everything(server)})
    return {"version": peer.version, "serves": task, "rounds": starts, **medians(starts)}


def _everything(server: Server) -> float:
    return sum(map(pss, family(server.process.pid))) / MB
