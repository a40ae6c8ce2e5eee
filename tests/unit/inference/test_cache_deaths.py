"""ModelCache: workers that die, models that keep dying, and memory that is short."""

import asyncio

import pytest

from src.core.errors import InsufficientMemoryError, ModelLoadError, ModelQuarantinedError, WorkerDiedError
from tests.fake_workers import Rack, Scales, settle
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_dead_worker_is_forgotten_and_a_new_one_answers() -> None:
    rack = Rack()
    await rack.touch("a")
    dead = rack.workers["a"]
    dead.die(WorkerDiedError("killed"))
    assert len(rack.cache) == 0
    async with asyncio.timeout(10), rack.use("a") as worker:
        assert worker is not dead
    assert rack.loads == {"a": 2}


async def test_a_dead_worker_is_replaced_without_a_request() -> None:
    rack = Rack()
    await rack.touch("a")
    rack.workers["a"].die(WorkerDiedError("killed"))
    await until(lambda: rack.loaded() == {"a"})
    assert rack.loads == {"a": 2}


async def test_a_death_while_in_use_leaves_the_successor_alone() -> None:
    rack = Rack()
    async with rack.use("a") as dead:
        dead.die(WorkerDiedError("killed"))
        await until(lambda: rack.loaded() == {"a"})
    await settle()
    assert rack.loaded() == {"a"}
    assert rack.workers["a"].unloaded == 0


async def test_the_reason_of_a_death_is_what_the_autopsy_finds() -> None:
    rack = Rack()
    await rack.touch("a")
    rack.workers["a"].autopsy = "its process was killed by signal 9"
    rack.workers["a"].die(WorkerDiedError("killed"))
    await settle()
    (entry,) = rack.cache.entries()
    assert (entry.state, rack.cache.reason(entry)) == ("dead", "its process was killed by signal 9")


async def test_a_model_that_keeps_dying_is_quarantined_with_the_reason() -> None:
    rack = Rack(max_deaths=2)
    for _ in range(2):
        await rack.touch("a")
        rack.workers["a"].die(WorkerDiedError("segfault"))
    with pytest.raises(ModelQuarantinedError, match=r"died 2 times.*the last time: segfault") as caught:
        await rack.touch("a")
    assert caught.value.retryable
    assert rack.loads == {"a": 2}


async def test_clear_ends_a_quarantine() -> None:
    rack = Rack(max_deaths=1)
    await rack.touch("a")
    rack.workers["a"].die(WorkerDiedError("segfault"))
    assert await rack.cache.clear() == 0
    await rack.touch("a")
    assert rack.loaded() == {"a"}


async def test_a_death_while_loading_counts_as_one() -> None:
    rack = Rack(max_deaths=1)
    rack.failure = WorkerDiedError("died while it loaded")
    with pytest.raises(WorkerDiedError):
        await rack.touch("a")
    with pytest.raises(ModelQuarantinedError):
        await rack.touch("a")


async def test_idle_models_go_when_memory_is_short() -> None:
    rack = Rack(max_size=5, admission=Scales())
    await rack.touch("a", "b")
    assert rack.loaded() == {"b"}
    assert rack.workers["a"].unloaded == 1


async def test_a_model_that_does_not_fit_beside_a_busy_one_is_refused() -> None:
    rack = Rack(max_size=5, admission=Scales())
    async with rack.use("busy"):
        with pytest.raises(InsufficientMemoryError):
            await rack.touch("a")
    assert rack.loaded() == {"busy"}


@pytest.mark.parametrize("how", ["clear", "death", "failed load"])
async def test_memory_is_given_back(how: str) -> None:
    scales = Scales()
    rack = Rack(admission=scales, max_deaths=1)
    if how == "failed load":
        rack.failure = ModelLoadError("no config.json")
        with pytest.raises(ModelLoadError):
            await rack.touch("a")
    else:
        await rack.touch("a")
        assert scales.booked == ["a"]
    if how == "clear":
        await rack.cache.clear()
    if how == "death":
        rack.workers["a"].die(WorkerDiedError("killed"))
    assert scales.booked == []
