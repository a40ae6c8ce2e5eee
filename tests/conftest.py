"""Fixtures that several test files share."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Two test processes on few cores: threads that wait for each other make tiny models ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.servers import ServerMissingError, postgresql


@pytest.fixture(scope="session")
def postgresql_uri() -> Iterator[str]:
    """A real PostgreSQL server; tests that write take a database of their own from `new_database`."""
    try:
        with postgresql() as uri:
            yield uri
    except ServerMissingError as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(str(exc))
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def needs_program() -> Callable[[str], None]:
    """Skips a test whose program is not installed; in CI, which installs it, that is a failure."""

    def check(name: str) -> None:
        if shutil.which(name) is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"the program '{name}' is not installed")

    return check


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The service runs on asyncio, so the async tests do."""
    return "asyncio"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Keeps a measured figure; all of them are printed at the end of the run, whichever process measured them."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the figures."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    figures = [
        f"{report.nodeid}: {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)
