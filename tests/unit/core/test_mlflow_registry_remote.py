"""Servers that are down, slow, or no MLflow at all; and credentials, which nobody gets to see."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from src.core.errors import RegistryUnavailableError
from src.core.mlflow_registry import MlflowRegistry
from src.core.registry.address import is_database, masked, sqlite_path, without_credentials
from tests.unit.core.conftest import free_port, open_registry, running_mlflow

SOURCE = "lakefs://repo/0123abcd/"


@contextmanager
def server(status: int, body: str, seen: list[str] | None = None) -> Iterator[str]:
    """An HTTP server that always answers the same; `seen` gets the Authorization headers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            if seen is not None:
                seen.append(self.headers.get("Authorization", ""))
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815 - the names are http.server's

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@contextmanager
def silence() -> Iterator[str]:
    """A server that accepts and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def degraded(folder: Path, uri: str, **options: float) -> MlflowRegistry:
    registry = open_registry(folder, uri, **options)
    registry.start()
    assert registry.state == "degraded"
    return registry


@pytest.mark.parametrize(
    "uri",
    ["http://someone:s3same@127.0.0.1:{port}", "postgresql://someone:s3same@127.0.0.1:{port}/mlflow?password=s3same"],
)
def test_a_server_that_refuses_connections(folder: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    with closing(degraded(folder, uri.format(port=free_port()), request_timeout=2.0)) as registry:
        with pytest.raises(RegistryUnavailableError) as caught:
            registry.resolve("m")
        health = registry.health()

    assert time.monotonic() - started < 10
    assert "cannot be reached" in caught.value.message
    assert health["reachable"] is False
    assert health["uri"].startswith(uri.partition("//")[0] + "//127.0.0.1:")
    for text in (caught.value.message, str(health), str(registry.reason), caplog.text, str(caught.value.__cause__)):
        assert "s3same" not in text


def test_a_server_that_never_answers_costs_one_timeout(folder: Path) -> None:
    with silence() as address, closing(degraded(folder, f"http://{address}", request_timeout=1.0)) as registry:
        registry._connection._barred_until = 0.0
        started = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match="timed out"):
            registry.resolve("m")
        first = time.monotonic() - started
        with pytest.raises(RegistryUnavailableError):
            registry.resolve("m")
        second = time.monotonic() - started - first

    assert 0.9 < first < 2.5
    assert second < 0.1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html>welcome</html>", "not in a valid JSON format"),
        (404, "<html>not found</html>", "404"),
        (404, '{"detail": "Not Found"}', "Not Found"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "Invalid Host header"),
        (401, "You are not authenticated", "not authenticated"),
        (500, '{"error_code": "INTERNAL_ERROR", "message": "the database is down"}', "the database is down"),
        (503, "", "503"),
    ],
)
def test_a_server_that_answers_but_not_as_a_registry(folder: Path, status: int, body: str, said: str) -> None:
    with server(status, body) as address, closing(degraded(folder, f"http://{address}")) as registry:
        with pytest.raises(RegistryUnavailableError, match=said):
            registry.resolve("m")
        with pytest.raises(RegistryUnavailableError, match=said):
            registry.register("m", source=SOURCE, tags={})


def test_credentials_in_the_address_are_sent_but_never_shown(folder: Path) -> None:
    seen: list[str] = []
    with (
        server(500, "oops", seen) as address,
        closing(degraded(folder, f"http://someone:s%40me@{address}")) as registry,
    ):
        assert seen[0] == "Basic c29tZW9uZTpzQG1l"
        assert registry.health()["uri"] == f"http://{address}"
        assert "s%40me" not in str(registry.reason)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://u:p@host:5000/base", "http://host:5000/base"),
        ("https://host", "https://host"),
        ("postgresql+psycopg://u:p@db:5432/mlflow?sslpassword=x", "postgresql+psycopg://db:5432/mlflow"),
        ("sqlite:////data/m@x.db", "sqlite:////data/m@x.db"),
    ],
)
def test_an_address_is_shown_without_credentials(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


def test_a_foreign_text_is_shown_without_credentials() -> None:
    assert masked("u:pass@host said: pass", "http://u:pass@host") == "***@host said: ***"
    assert masked("nothing to hide", "http://host") == "nothing to hide"


@pytest.mark.parametrize(
    ("uri", "path", "database"),
    [
        ("sqlite:////data/my%20models/m.db", Path("/data/my%20models/m.db"), True),
        ("sqlite:////data/m.db?timeout=5", Path("/data/m.db"), True),
        ("sqlite:///m.db", Path.cwd() / "m.db", True),
        ("sqlite:///:memory:", None, True),
        ("sqlite://", None, True),
        ("postgresql+psycopg://h/d", None, True),
        ("http://h", None, False),
    ],
)
def test_kinds_of_addresses(uri: str, path: Path | None, database: bool) -> None:
    assert sqlite_path(uri) == path
    assert is_database(uri) is database


@pytest.mark.slow
def test_a_restart_while_the_server_is_down_serves_what_it_served_and_recovers(
    folder: Path, empty_registry: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with closing(open_registry(folder, address)) as registry:
        with running_mlflow(folder, port):
            registry.start()
            registry.register("m", source=SOURCE, tags={"engine": "ollama"}, stage="production")
            assert registry.resolve("m").warnings == ()
        registry._cache._models["m"].verified_at -= 100
        assert "does not answer" in registry.resolve("m").warnings[0]

    with closing(open_registry(folder, address, ttl=0.2)) as restarted:
        restarted.start()
        assert restarted.state == "degraded"
        assert restarted.resolve("m").registered.engine == "ollama"
        with running_mlflow(folder, port):
            deadline = time.monotonic() + 20
            while restarted.cached("m") is None or restarted.cached("m").warnings:  # type: ignore[union-attr]
                assert time.monotonic() < deadline
                if restarted.stale("m"):
                    restarted.refresh("m")
                time.sleep(0.05)
            assert restarted.health()["state"] == "ready"
            assert restarted.register("m", source=SOURCE, tags={}).version == "2"
