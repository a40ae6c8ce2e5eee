"""Fixtures that several test files share."""

import os
from collections.abc import Iterator

import pytest

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
def anyio_backend() -> str:
    """The service runs on asyncio, so the async tests do."""
    return "asyncio"
