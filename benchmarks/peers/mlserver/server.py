"""`python -m benchmarks.peers.mlserver.server PORT FOLDER`: writes MLServer's settings into a folder and starts it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.work import MAX_BATCH, TASK

if __name__ == "__main__":
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": int(sys.argv[3]),
        "metrics_port": int(sys.argv[4]),
        # A pool of one worker costs more than it brings on two cores (tried).
        "parallel_workers": 0,
        "debug": False,
    }
    model: dict[str, Any] = {"name": "model", "implementation": "benchmarks.peers.mlserver.runtime.Runtime"}
    if os.environ[TASK] != "noop":
        model |= {"max_batch_size": MAX_BATCH, "max_batch_time": 0.01}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execve(program, [program, "start", str(folder)], {**os.environ, "PYTHONPATH": os.getcwd()})
