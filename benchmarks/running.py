"""Starting what is measured, and reading what it costs."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Server:
    """A server under measurement."""

    url: str
    process: "subprocess.Popen[bytes]"
    started: float
    healthy_after: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def post(self, path: str, body: Any) -> Any:
        """Posts JSON and returns the answer's value, also of a failure."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as exc:
            return json.loads(exc.read())

    def get(self, path: str) -> Any:
        """Gets JSON."""
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.loads(response.read())


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    module: str,
    *,
    data_dir: Path | None = None,
    health: str = "/inference/health",
    arguments: tuple[str, ...] = (),
    **env: str,
) -> Iterator[Server]:
    """Runs `python -m module` until the block ends; its first healthy answer is timed."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIML_", "MLFLOW_"))}
    settings = {"AIML_PORT": str(port), "AIML_SAMPLES": "off", "AIML_LOG_FORMAT": "json", "AIML_ENV_FILE": os.devnull}
    if data_dir is not None:
        settings["AIML_DATA_DIR"] = str(data_dir)
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *(argument.format(port=port) for argument in arguments)],
            cwd=ROOT,
            env={**kept, **settings, **env},
            stdout=log,
            stderr=log,
        )
        server = Server(f"http://127.0.0.1:{port}", process, started)
        try:
            _wait(server, health)
            server.healthy_after = time.perf_counter() - started
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Server, path: str) -> None:
    while True:
        if server.process.poll() is not None:
            raise RuntimeError(f"{server.process.args} ended with {server.process.returncode}")
        try:
            urllib.request.urlopen(server.url + path, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.perf_counter() - server.started > 120:
                raise
            time.sleep(0.005)


def load(url: str, body: Any, concurrency: int, seconds: float, warmup: float = 1.0) -> dict[str, Any]:
    """Runs the load generator against a URL; see `benchmarks.load.Load`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", url, json.dumps(body), str(concurrency), str(seconds), str(warmup)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def pss(pid: int) -> int:
    """Returns the proportional set size of a process in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def family(pid: int) -> list[int]:
    """Returns a process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def machine() -> dict[str, Any]:
    """Describes this machine, as far as a figure depends on it."""
    from importlib.metadata import version

    names = ("fastapi", "uvicorn", "torch", "transformers", "mlflow")
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_bytes": int(memory.split()[1]) * 1024,
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in names},
    }
