"""The service as a process of its own, for tests that ask it over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
# One for all: making a client reads certificates for a tenth of a second. No connection is kept, since services end.
CLIENT = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class Service:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path

    def post(self, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        """Posts JSON."""
        return CLIENT.post(self.url + path, json=body, timeout=kwargs.pop("timeout", 120), **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        """Gets."""
        return CLIENT.get(self.url + path, timeout=kwargs.pop("timeout", 60), **kwargs)

    def infer(self, model: str = "demo-text", inputs: Any = "What is 27 plus 45?", **options: Any) -> httpx.Response:
        """Asks for text generation."""
        engine = options.pop("engine", "transformers")
        return self.post(
            "/inference/infer",
            {
                "task": options.pop("task", "text-generation"),
                "engine": engine,
                "model_name": model,
                "data": {"inputs": inputs},
                "options": options,
            },
        )

    def workers(self) -> list[int]:
        """Returns the process ids of the workers, however they were started; the preloader is none."""
        children = children_of(self.process.pid)
        preloaders = [pid for pid in children if "workers.preloader" in command_line(pid)]
        return [pid for pid in children if pid not in preloaders] + [
            pid for preloader in preloaders for pid in children_of(preloader)
        ]


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Returns an environment in which only the given settings count."""
    ours = ("AIML_", "MLFLOW_", "LAKEFS_", "OLLAMA_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "AIML_DATA_DIR": str(data_dir), "AIML_ENV_FILE": os.devnull, **settings}


@contextmanager
def running_service(
    data_dir: Path, *, samples: str = "off", port: int | None = None, **settings: str
) -> Iterator[Service]:
    """Starts the service on a free port and waits for its first answer."""
    data_dir.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = data_dir.parent / f"{data_dir.name}-{port}.log"
    env = environment(data_dir, AIML_PORT=str(port), AIML_SAMPLES=samples, AIML_LOG_FORMAT="json", **settings)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "src.main"], cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
        )
    service = Service(f"http://127.0.0.1:{port}", process, data_dir, log)
    try:
        wait_until(lambda: _answers(service), START_SECONDS, f"the service to start; its log:\n{log.read_text()}")
        yield service
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, by force if it does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Waits for a condition; fails the test when the time has passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """Returns the living children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state = process_state(int(entry.name))
            if state is not None and state[1] == pid and state[0] != "Z":
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    """Returns a process's command line; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    state = process_state(pid)
    return state is not None and state[0] != "Z"


def process_state(pid: int) -> tuple[str, int] | None:
    """Returns a process's state letter and its parent's id; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def _answers(service: Service) -> bool:
    if service.process.poll() is not None:
        raise AssertionError(f"the service ended with {service.process.returncode}:\n{service.log.read_text()}")
    try:
        return CLIENT.get(service.url + "/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
