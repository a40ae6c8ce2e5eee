"""`aiml mlflow`: MLflow's own server and UI over the registry in use, beside the running service.

MLflow would create a missing registry file, and a new one looks like a registry without models. So the file
must be there, and it is opened in a mode in which sqlite never creates one.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from src.cli.failures import CommandError
from src.cli.output import print_text, say
from src.cli.session import Session, reporting

if TYPE_CHECKING:
    from src.core.config import Settings

START_SECONDS = 180.0
STOP_SECONDS = 10.0
_LOCK_SECONDS = 5.0
_OPTIONS_OF_OURS = (
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    "MLFLOW_SERVER_X_FRAME_OPTIONS",
)
"""The user's settings of MLflow that reach it; others are for the service, or for another MLflow."""


def mlflow(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Open MLflow's own UI over the registry, beside the running service; Ctrl-C stops it."""
    from src.core.config import load_env_file, load_settings
    from src.core.registry.address import is_database, without_credentials

    with reporting(Session()):
        load_env_file()
        settings = load_settings()
        if not is_database(settings.tracking_uri):
            say("The registry is an MLflow server, which has its own UI:")
            print_text(without_credentials(settings.tracking_uri))
            return
        backend = _backend(settings.tracking_uri)
        _check_listening(settings, host, port)
        _serve(host, port, backend, artifacts=settings.data_dir / "mlflow-artifacts")


def _backend(uri: str) -> str:
    """Returns the address of a database as MLflow's server shall open it; a sqlite file must be a registry already."""
    from src.core.registry.address import sqlite_path
    from src.core.registry.sqlite_guard import SqliteGuard

    path = sqlite_path(uri)
    if path is None:
        return uri
    guard = SqliteGuard(path)
    if guard.is_absent():
        raise CommandError(f"There is no registry at {path}: start the service once (`make run`), which makes it")
    problem = guard.problem(known=True, holds_models=False, wait=_LOCK_SECONDS)
    if problem is not None:
        raise CommandError(f"The registry's file {path} {problem.reason}; the service's health says what to do")
    # Quoted twice: SQLAlchemy undoes one, sqlite the other.
    return f"sqlite:///file:{quote(quote(str(path)))}?mode=rw&uri=true"


def _check_listening(settings: "Settings", host: str, port: int) -> None:
    from src.core.config import is_loopback

    if not is_loopback(host) and not settings.allow_anonymous:
        raise CommandError(
            f"MLflow's UI asks nobody for a key, so listening on {host} would let everybody change the registry: "
            "set AIML_ALLOW_ANONYMOUS=1 if that is meant"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise CommandError(
            f"Port {port} of {host} cannot be listened on ({exc.strerror}): is an MLflow running there already? "
            "Choose another with --port"
        ) from exc


def _serve(host: str, port: int, backend: str, *, artifacts: Path) -> None:
    say("Starting MLflow's UI …")
    with tempfile.TemporaryDirectory(prefix="aiml-mlflow-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
        command += ["--artifacts-destination", str(artifacts), "--uvicorn-opts", "--log-level warning"]
        try:
            # In a folder of its own: MLflow makes folders where it is started.
            with _running(command, cwd=folder, env=_environment(backend)) as process:
                url = _await_answer(process, host, port)
                say(f"MLflow's UI is at {url}; Ctrl-C stops it.")
                process.wait()
                raise _ended(process)
        except KeyboardInterrupt:
            say("MLflow's UI has stopped.")


def _environment(backend: str) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("MLFLOW_") or n in _OPTIONS_OF_OURS}
    return {
        **kept,
        # Not as arguments, which everybody on this machine can read: the address may hold a password.
        "MLFLOW_BACKEND_STORE_URI": backend,
        "MLFLOW_REGISTRY_STORE_URI": backend,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Evaluation jobs, which nobody needs here, would take eight more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program in a session of its own; whatever belongs to it has ended when the block has."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, signal.default_int_handler)  # like Ctrl-C
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        _signal_all(process, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        _signal_all(process, signal.SIGKILL)
        process.wait()


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass  # all of them are gone


def _await_answer(process: subprocess.Popen[bytes], host: str, port: int) -> str:
    """Returns the UI's address once it answers; raises `CommandError` where its server ends before."""
    import httpx

    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while process.poll() is None:
            try:
                if client.get(f"{url}/health").is_success:
                    return url
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise CommandError(f"MLflow's server has not answered at {url} within {START_SECONDS:g} s")
            time.sleep(0.2)
    raise _ended(process)


def _ended(process: subprocess.Popen[bytes]) -> CommandError:
    return CommandError(f"MLflow's server ended by itself (exit code {process.wait()}); what it says is above")
