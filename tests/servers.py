"""Real servers for tests: each is started on a free port of 127.0.0.1 and ended with its test."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy

from tests.named_hosts import MLFLOW_HOST
from tests.service import free_port, wait_until

START_SECONDS = 240.0
STOP_SECONDS = 30.0
DEBIAN_BINARIES = "/usr/lib/postgresql/*/bin"


class ServerMissingError(Exception):
    """The server's programs are not installed on this machine."""


@contextmanager
def running(
    command: Sequence[str],
    *,
    ready: Callable[[], bool],
    log: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the block ends; enters the block once `ready` is true. `log` takes its output.

    `options` go to `subprocess.Popen`. Raises `AssertionError` with the log where the program ends early.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"{command[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')}")
        return ready()

    try:
        wait_until(answers, START_SECONDS, f"{command[0]} to start; its log is {log}")
        yield process
    finally:
        _end(process, stop_signal)


def answers_http(url: str) -> bool:
    """Whether a server answers 200 at an address."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def postgresql() -> Iterator[str]:
    """Runs a PostgreSQL server with an empty database; yields its URI.

    Raises `ServerMissingError` where PostgreSQL is not installed.
    """
    binaries = _postgresql_binaries()
    # PostgreSQL refuses to run as root, so there it gets a user of its own and a folder that user can reach.
    user = _unprivileged_user()
    as_user: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, user, user)
        data, port = Path(folder, "data"), free_port()
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "mlflow", "-A", "trust"]
        subprocess.run(
            [*initdb, "-E", "UTF8", "--locale=C", "--no-sync"], check=True, capture_output=True, cwd=folder, **as_user
        )
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        uri = f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        command = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGINT: end now, without waiting for clients that hold connections.
        with running(
            command,
            ready=lambda: _answers_sql(uri),
            log=Path(folder, "log"),
            stop_signal=signal.SIGINT,
            cwd=folder,
            **as_user,
        ):
            yield uri


@contextmanager
def mlflow_on(database: str, folder: Path) -> Iterator[str]:
    """Runs a real MLflow server on a database; yields its address, whose host is not localhost."""
    port = str(free_port())
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
    command += ["--default-artifact-root", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", port]
    env = {
        **os.environ,
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{MLFLOW_HOST}:{port},127.0.0.1:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that the registry does not need
    }
    env.pop("MLFLOW_TRACKING_URI", None)
    ready = f"http://127.0.0.1:{port}/health"
    with running(command, ready=lambda: answers_http(ready), log=folder / "mlflow.log", cwd=folder, env=env):
        yield f"http://{MLFLOW_HOST}:{port}"


def new_database(server_uri: str) -> str:
    """Creates an empty database on a PostgreSQL server; returns its URI."""
    name = f"test_{secrets.token_hex(6)}"
    with _connected(server_uri) as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    return f"{server_uri.rpartition('/')[0]}/{name}"


def rows(uri: str, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """Returns what a query finds in a database; `:name` in it stands for a value."""
    with _connected(uri) as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(query), values)]


@contextmanager
def _connected(uri: str) -> Iterator[sqlalchemy.Connection]:
    """Connects by the driver that SQLAlchemy takes for an address, as MLflow does; every statement counts at once."""
    engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


def _postgresql_binaries() -> Path:
    """Returns the folder with `initdb` and `postgres`; the newest where there are several."""
    found = sorted(Path("/").glob(f"{DEBIAN_BINARIES[1:]}/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).resolve().parent
    raise ServerMissingError("PostgreSQL is not installed (on Debian: apt-get install postgresql)")


def _unprivileged_user() -> str | None:
    """Returns the user under whom PostgreSQL runs; None where this process is unprivileged itself."""
    return "postgres" if os.geteuid() == 0 else None


def _answers_sql(uri: str) -> bool:
    try:
        return rows(uri, "SELECT 1") == [(1,)]
    except sqlalchemy.exc.OperationalError:
        return False


def _end(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Ends a program and what it started; by force if it does not go."""
    if process.poll() is None:
        process.send_signal(stop_signal)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
