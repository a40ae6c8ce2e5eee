"""Watching a job without a thread."""

import asyncio
import itertools
import threading
import time

import pytest

from src.core.errors import NotFoundError
from src.core.jobs import Job, JobService
from tests.unit.core.jobs.handlers import PATIENCE, Gate

pytestmark = pytest.mark.anyio


async def test_first_comes_the_present_state_and_last_the_finished_one(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {"done": 40})
    gate.wait_for_starts(1)
    seen: list[Job] = []
    async for state in service.changes(job.id):
        seen.append(state)
        gate.open()
    assert [state.status for state in (seen[0], seen[-1])] == ["running", "succeeded"]
    assert [state.finished for state in seen[:-1]] == [False] * (len(seen) - 1)


async def test_a_finished_job_is_told_once(service: JobService) -> None:
    job = service.wait(service.submit("echo", {}).id, PATIENCE)
    assert [state async for state in service.changes(job.id)] == [job]


async def test_nothing_is_told_twice_and_not_too_often(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {})
    gate.wait_for_starts(1)
    seen: list[Job] = []

    async def watch() -> None:
        async for state in service.changes(job.id):
            seen.append(state)

    begin = time.monotonic()
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.9)
    gate.open()
    await asyncio.wait_for(watching, PATIENCE)
    assert len(seen) <= (time.monotonic() - begin) / 0.2 + 2
    assert all(earlier != later for earlier, later in itertools.pairwise(seen))


async def test_many_watchers_take_no_thread(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {})
    gate.wait_for_starts(1)
    before = threading.active_count()

    async def last() -> Job:
        return [state async for state in service.changes(job.id)][-1]

    watching = [asyncio.create_task(last()) for _ in range(50)]
    await asyncio.sleep(0.3)
    assert threading.active_count() == before
    gate.open()
    assert {job.status for job in await asyncio.wait_for(asyncio.gather(*watching), PATIENCE)} == {"succeeded"}


async def test_watching_ends_when_the_service_stops(service: JobService, gate: Gate) -> None:
    job = service.submit("gate", {})
    gate.wait_for_starts(1)
    seen: list[Job] = []
    async with asyncio.timeout(PATIENCE):
        async for state in service.changes(job.id):
            seen.append(state)
            if len(seen) == 1:
                await asyncio.to_thread(service.stop)
    assert not seen[-1].finished


async def test_a_job_that_there_is_not_is_not_found(service: JobService) -> None:
    with pytest.raises(NotFoundError):
        await anext(service.changes("nowhere"))
