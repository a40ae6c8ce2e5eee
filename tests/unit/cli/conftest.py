"""Commands run against a stub of the service."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from src.cli.app import app as commands
from tests.unit.cli.stub_service import Stub, serving


@pytest.fixture(scope="session")
def stub_server() -> Iterator[Stub]:
    """One server for all tests."""
    with serving() as stub:
        yield stub


@pytest.fixture
def stub(stub_server: Stub) -> Stub:
    """The server, with nothing in it from the tests before."""
    stub_server.answers.clear()
    stub_server.asked.clear()
    return stub_server


@pytest.fixture
def aiml(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command line against the stub."""
    monkeypatch.setenv("AIML_URL", stub.url)
    monkeypatch.delenv("AIML_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(commands, list(arguments), catch_exceptions=False, **options)

    return run
