"""Starting the servers that are measured, asking them, and ending them with all their processes."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Plan
from benchmarks.machine import family

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 180.0  # seconds that a server may take to start
_OURS = ("AIML_", "MLFLOW_", "OMP_", "MKL_", "MALLOC_", "HF_", "TRANSFORMERS_")


@dataclass
class Server:
    """A server under measurement; `healthy_after`: seconds from its start to the first healthy answer."""

    url: str
    process: "subprocess.Popen[bytes]"
    healthy_after: float

    def post(self, path: str, body: Any) -> Any:
        """Posts JSON and returns the answer's value, also of a failure."""
        return self.send(path, json.dumps(body).encode(), "application/json")

    def send(self, path: str, body: Any, content_type: str, length: int | None = None) -> Any:
        """Posts bytes, or an iterable of `length` bytes in all, and returns the value of the JSON answer."""
        headers = {"Content-Type": content_type, **({} if length is None else {"Content-Length": str(length)})}
        request = urllib.request.Request(self.url + path, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as exc:
            return json.loads(exc.read())

    def get(self, path: str) -> Any:
        """Gets JSON."""
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.loads(response.read())

    def load(self, path: str, bodies: Sequence[Any], **plan: Any) -> dict[str, Any]:
        """Puts load on it from a process of its own; see `benchmarks.load.Plan`."""
        return load(Plan(url=self.url + path, bodies=list(bodies), **plan))


def load(plan: Plan) -> dict[str, Any]:
    """Carries a plan out in a process of its own; raises `RuntimeError` where requests failed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=ROOT,
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the load on {plan.url} failed: {done.stderr.strip()[-1500:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    if figures["errors"]:
        raise RuntimeError(f"{figures['errors']} requests to {plan.url} failed: {figures.get('first_error')}")
    return figures


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plain_environment() -> dict[str, str]:
    """Returns this process's environment without what would set up a server or its libraries."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


@functools.cache
def worker_environment() -> Mapping[str, str]:
    """Returns what our workers have in their environment (malloc, threads that wait): limits and peers get the same.

    Read in another process: this one stays small, so that it shares no pages with those whose memory is measured.
    """
    script = "import json; from src.inference.workers.launching import ENVIRONMENT; print(json.dumps(ENVIRONMENT))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    environment: dict[str, str] = json.loads(done.stdout)
    return environment


@contextmanager
def ours(data_dir: Path, module: str = "src.main", **env: str) -> Iterator[Server]:
    """Runs our service over a data folder until the block ends."""
    port = free_port()
    settings = {
        "AIML_PORT": str(port),
        "AIML_SAMPLES": "off",
        "AIML_LOG_FORMAT": "json",
        "AIML_ENV_FILE": os.devnull,
        "AIML_DATA_DIR": str(data_dir),
    }
    with serving([sys.executable, "-m", module], port, "/inference/health", {**settings, **env}) as server:
        yield server


@contextmanager
def serving(command: Sequence[str], port: int, health: str, env: Mapping[str, str]) -> Iterator[Server]:
    """Runs a server until the block ends; its first good answer on `health` is timed.

    Raises `RuntimeError` with the end of its output where it does not start.
    """
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**plain_environment(), **env}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            while not _healthy(url + health):
                if process.poll() is not None or time.perf_counter() - started > _PATIENCE:
                    raise RuntimeError(f"{command[:4]} did not start: {_tail(log)}")
                time.sleep(0.005)
            yield Server(url, process, time.perf_counter() - started)
        except Exception as exc:
            exc.add_note(f"the end of the server's output:\n{_tail(log)}")
            raise
        finally:
            _end(process)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _tail(log: Any) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - 2000))
    return str(log.read().decode("utf-8", "replace"))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a server and whatever it has started and left behind."""
    members = family(process.pid)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in members[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
