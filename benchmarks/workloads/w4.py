"""W4: start to the first healthy answer; memory of the gateway then and with the registry in use; all of it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.running import family, pss, serving

MB = 1_000_000
_IMPORT = "import fastapi; print(open('/proc/self/smaps_rollup').read().split('Pss:')[1].split()[0])"


def run(folder: Path, seconds: float) -> dict[str, Any]:
    """Returns seconds and megabytes, and the ratio to a process that only imports FastAPI."""
    from benchmarks.workloads.w1 import register

    data_dir = folder / "w4"
    register(data_dir)
    starts = []
    for _ in range(5):
        with serving("src.main", data_dir=data_dir) as server:
            starts.append((server.healthy_after, pss(server.process.pid) / MB))
    with serving("src.main", data_dir=data_dir) as server:
        while server.get("/inference/health")["dependencies"]["mlflow"]["status"] == "starting":
            time.sleep(0.2)
        in_use = pss(server.process.pid) / MB
        everything = sum(pss(pid) for pid in family(server.process.pid)) / MB
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    fastapi_mb = int(done.stdout) * 1024 / MB
    healthy, memory = (sorted(column)[len(starts) // 2] for column in zip(*starts, strict=True))
    return {
        "figures": {
            "start_to_healthy_seconds": healthy,
            "gateway_mb_when_healthy": memory,
            "gateway_mb_registry_in_use": in_use,
            "everything_mb": everything,
            "import_fastapi_mb": fastapi_mb,
        },
        "ratios": {"gateway_to_import_fastapi": memory / fastapi_mb},
    }
