"""Registries to test against: a real sqlite file each; a real MLflow server on a real PostgreSQL once, marked slow."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from src.core.mlflow_registry import MlflowRegistry
from tests.named_hosts import resolved_here

Make = Callable[..., MlflowRegistry]


def open_registry(folder: Path, uri: str | None = None, **options: float) -> MlflowRegistry:
    """A registry client on a data folder, embedded unless a URI is given; not started. Patient, for busy machines."""
    options.setdefault("request_timeout", 30.0)
    return MlflowRegistry(
        uri or f"sqlite:///{folder / 'mlflow.db'}",
        snapshot_path=folder / "registry-snapshot.json",
        embedded=uri is None,
        **options,
    )


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry file as MLflow makes it (3 s), to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    with closing(open_registry(folder)) as registry:
        registry.start()
        assert registry.state == "ready", registry.reason
        assert registry.newly_created
    return folder / "mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with an empty registry; also the working folder, since MLflow's own client writes there."""
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_registry(folder: Path) -> Iterator[Make]:
    """Opens clients on the data folder, as many as the test wants, and closes them."""
    opened: list[MlflowRegistry] = []

    def make(uri: str | None = None, *, start: bool = True, **options: float) -> MlflowRegistry:
        registry = open_registry(folder, uri, **options)
        opened.append(registry)
        if start:
            registry.start()
            assert registry.state == "ready", registry.reason
        return registry

    yield make
    for registry in opened:
        registry.close()


@pytest.fixture
def database(folder: Path) -> Path:
    """The folder's registry file."""
    return folder / "mlflow.db"


@pytest.fixture
def served(make_registry: Make) -> MlflowRegistry:
    """A client that has served version 1 of `model` from production."""
    registry = make_registry(request_timeout=1.0)
    registry.register("model", source="lakefs://repo/0123abcd/", tags={}, stage="production")
    registry.resolve("model")
    return registry


def look_again(registry: MlflowRegistry) -> None:
    """Lets the next look at the file be a fresh one, and nobody be barred."""
    assert registry._connection.file is not None
    registry._connection.file.guard._looked_at = 0.0
    registry._connection._barred_until = registry._connection._quiet_until = 0.0


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest) -> str | None:
    """The address of a registry of each kind; None: embedded."""
    if request.param == "sqlite":
        return None
    address: str = request.getfixturevalue("mlflow_server")
    return address


@pytest.fixture
def registry(make_registry: Make, uri: str | None) -> MlflowRegistry:
    """A started client, for each kind of registry."""
    return make_registry(uri)


@pytest.fixture
def name() -> str:
    """A name that no other test has: servers are shared."""
    return f"org/model:{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, postgresql_uri: str) -> Iterator[str]:
    """The address of a real MLflow server on a real PostgreSQL, under a host name that is not localhost."""
    from tests.servers import mlflow_on, new_database  # here, since it imports SQLAlchemy, and laziness is tested

    folder = tmp_path_factory.mktemp("server")
    with resolved_here(), mlflow_on(new_database(postgresql_uri), folder) as address:
        yield address


@contextmanager
def running_mlflow(folder: Path, port: int) -> Iterator[str]:
    """Runs a real MLflow server on the folder's registry file; gives its address."""
    address = f"http://127.0.0.1:{port}"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (
        open(folder / "server.log", "ab") as log,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--backend-store-uri",
                f"sqlite:///{folder}/mlflow.db",
                *arguments,
            ],
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as server,
    ):
        try:
            _wait_until_healthy(f"{address}/health", server, folder / "server.log")
            yield address
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the MLflow server did not start: {log.read_text()[-2000:]}")
