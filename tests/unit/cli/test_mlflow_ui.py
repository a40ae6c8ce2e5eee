"""`aiml mlflow` starts nothing over a registry that is not there, not sound, or not a file of ours."""

import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from typer.testing import CliRunner, Result

from src.cli import mlflow_ui
from src.cli.app import app as commands

Run = Callable[..., Result]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "AIML_EXPORTED_TRACKING_URI", "AIML_ALLOW_ANONYMOUS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIML_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("AIML_ENV_FILE", "/dev/null")
    return tmp_path


@pytest.fixture
def aiml_mlflow(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(mlflow_ui, "_serve", started)
    return lambda *arguments: CliRunner().invoke(commands, ["mlflow", *arguments], catch_exceptions=False)


def registry(folder: Path) -> Path:
    path = folder / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE registered_models (name TEXT)")
    connection.commit()
    connection.close()
    return path


def test_a_configured_server_is_named_without_its_password(aiml_mlflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow.example:5000")
    done = aiml_mlflow()
    assert (done.exit_code, done.stdout) == (0, "http://mlflow.example:5000\n")
    assert "secret" not in done.output


def test_a_registry_that_was_never_made_is_not_made_now(aiml_mlflow: Run, data_dir: Path) -> None:
    done = aiml_mlflow()
    assert done.exit_code == 1
    assert "start the service once (`make run`)" in done.stderr
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"), [(b"no database at all" * 100, "is damaged"), (b"", "There is no registry")]
)
def test_a_file_that_is_no_registry_is_left_alone(aiml_mlflow: Run, data_dir: Path, content: bytes, said: str) -> None:
    (data_dir / "mlflow.db").write_bytes(content)
    done = aiml_mlflow()
    assert done.exit_code == 1
    assert said in done.stderr
    assert (data_dir / "mlflow.db").read_bytes() == content


def test_a_port_that_is_taken_is_told(aiml_mlflow: Run, data_dir: Path) -> None:
    registry(data_dir)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = aiml_mlflow("--port", port)
    assert done.exit_code == 1
    assert f"Port {port} of 127.0.0.1 cannot be listened on (Address already in use)" in done.stderr
    assert "--port" in done.stderr


def test_an_open_door_beyond_this_machine_is_refused(aiml_mlflow: Run, data_dir: Path) -> None:
    registry(data_dir)
    done = aiml_mlflow("--host", "0.0.0.0")
    assert done.exit_code == 1
    assert "AIML_ALLOW_ANONYMOUS=1" in done.stderr


def test_sqlite_is_told_never_to_create_the_file(data_dir: Path) -> None:
    folder = data_dir / "a folder #%20"
    folder.mkdir()
    path = registry(folder)
    engine = sqlalchemy.create_engine(mlflow_ui._backend(f"sqlite:///{path}"), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM registered_models")).scalar() == 0
    path.rename(folder / "away.db")
    with pytest.raises(sqlalchemy.exc.OperationalError, match="unable to open"):
        engine.connect()
    assert not path.exists()


def test_the_server_gets_no_setting_that_was_meant_for_another_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://somewhere")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "mlflow.example")
    environment = mlflow_ui._environment("sqlite:///x")
    assert "MLFLOW_DEFAULT_ARTIFACT_ROOT" not in environment
    assert environment["MLFLOW_SERVER_ALLOWED_HOSTS"] == "mlflow.example"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == environment["MLFLOW_REGISTRY_STORE_URI"] == "sqlite:///x"
