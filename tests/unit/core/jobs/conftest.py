"""A service on a folder of the test's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.core.jobs import JobHandler, JobService
from tests.unit.core.jobs.handlers import Gate, Open


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Open]:
    """Starts services on the folder `data`, as many as the test wants, and stops them."""
    opened: list[JobService] = []

    def open_(handlers: dict[str, JobHandler], **options: Any) -> JobService:
        service = JobService(options.pop("data_dir", tmp_path / "data"), handlers, **options)
        opened.append(service)
        service.start()
        return service

    yield open_
    for service in opened:
        service.stop()


@pytest.fixture
def service(open_service: Open, gate: Gate) -> JobService:
    """A started service with jobs of the kinds `echo`, which ends at once, and `gate`."""
    return open_service({"echo": lambda job, request: {"echo": request}, "gate": gate})
