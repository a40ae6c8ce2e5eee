"""ModelCache: single-flight loading, eviction by policy, nothing in use is ever taken away."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from src.core.errors import ModelLoadError, QueueFullError
from tests.fake_workers import Rack, Scales, settle
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def hold(rack: Rack, name: str, release: asyncio.Event) -> str:
    async with rack.use(name) as worker:
        await release.wait()
        return worker.name


async def test_fifty_cold_requests_are_one_load() -> None:
    rack, release = Rack(), asyncio.Event()
    rack.gate.clear()
    requests = [asyncio.create_task(hold(rack, "a", release)) for _ in range(50)]
    await settle()
    assert [entry.state for entry in rack.cache.entries()] == ["loading"]
    rack.gate.set()
    release.set()
    assert await asyncio.gather(*requests) == ["a"] * 50
    assert rack.loads == {"a": 1}
    assert list(rack.cache.loads.values()) == [1]


async def test_a_load_does_not_keep_other_models_waiting() -> None:
    rack = Rack()
    await rack.touch("warm")
    rack.gate.clear()
    cold = asyncio.create_task(rack.touch("cold"))
    await settle()
    async with asyncio.timeout(5), rack.use("warm") as worker:
        assert worker.name == "warm"
    rack.gate.set()
    await cold


async def test_another_device_is_another_load() -> None:
    rack = Rack()
    async with rack.use("a") as anywhere, rack.use("a", device="cpu") as on_cpu:
        assert anywhere is not on_cpu


async def test_variants_of_a_model_are_capped() -> None:
    rack = Rack(max_size=5, max_variants=2)
    for device in ("cpu", "cuda:0", "cuda:1"):
        async with rack.use("a", device):
            pass
    assert sorted(str(entry.key.device) for entry in rack.cache.entries()) == ["cuda:0", "cuda:1"]


async def test_a_variant_beyond_the_cap_is_refused_while_the_others_are_in_use() -> None:
    rack = Rack(max_size=5, max_variants=1)
    async with rack.use("a", "cpu"):
        with pytest.raises(QueueFullError, match="variants"):
            await rack.touch("a")
    await rack.touch("a")


async def test_requests_beyond_the_bound_are_refused_at_once() -> None:
    rack = Rack(max_waiting=2)
    rack.gate.clear()
    waiting = [asyncio.create_task(rack.touch("a")) for _ in range(2)]
    await settle()
    with pytest.raises(QueueFullError, match="2 requests wait for model 'a'"):
        await rack.touch("a")
    rack.gate.set()
    await asyncio.gather(*waiting)
    await rack.touch("a")


async def test_hits_and_misses_are_counted() -> None:
    rack = Rack()
    assert rack.cache.hit_rate == 0.0
    await rack.touch("a", "a", "a", "b")
    assert (rack.cache.hits, rack.cache.misses, rack.cache.hit_rate) == (2, 2, 0.5)


async def test_lru_lets_the_longest_unused_go() -> None:
    rack = Rack(max_size=3)
    await rack.touch("a", "b", "c", "b", "a", "a", "d")
    assert rack.loaded() == {"a", "b", "d"}
    assert rack.workers["c"].unloaded == 1
    await rack.touch("e")
    assert rack.loaded() == {"a", "d", "e"}


async def test_lfu_lets_the_least_used_go() -> None:
    rack = Rack(max_size=3, strategy="lfu")
    await rack.touch("a", "a", "a", "b", "c", "c", "b", "b", "d")
    assert rack.loaded() == {"a", "b", "d"}
    assert rack.workers["c"].unloaded == 1
    await rack.touch("e")
    assert rack.loaded() == {"a", "b", "e"}


async def test_lfu_lets_the_longest_unused_of_equals_go() -> None:
    rack = Rack(max_size=2, strategy="lfu")
    await rack.touch("a", "b", "b", "a", "c")
    assert rack.loaded() == {"a", "c"}


async def test_what_is_in_use_stays_and_an_idle_one_goes() -> None:
    rack = Rack(max_size=2)
    async with rack.use("old"):
        await rack.touch("idle", "new")
        assert rack.loaded() == {"old", "new"}
        assert rack.workers["old"].unloaded == 0


async def test_the_surplus_goes_when_it_is_released() -> None:
    rack = Rack(max_size=1)
    async with rack.use("a") as first:
        async with rack.use("b") as second:
            assert rack.loaded() == {"a", "b"}
            assert (first.unloaded, second.unloaded) == (0, 0)
        await settle()
        assert rack.loaded() == {"a"}
        assert (first.unloaded, second.unloaded) == (0, 1)
    await settle()
    assert rack.loaded() == {"a"}


async def test_sweep_unloads_what_was_idle_for_longer_than_the_ttl() -> None:
    rack = Rack(ttl=60)
    await rack.touch("old", "young")
    rack.grow_older("old", 61)
    rack.grow_older("young", 30)
    assert await rack.cache.sweep() == 1
    assert rack.loaded() == {"young"}
    assert rack.workers["old"].unloaded == 1


async def test_sweep_leaves_what_is_in_use_however_long() -> None:
    rack = Rack(ttl=60)
    async with rack.use("busy") as worker:
        rack.grow_older("busy", 3600)
        assert await rack.cache.sweep() == 0
        assert worker.unloaded == 0


async def test_sweep_makes_room_for_a_model_that_took_more_than_was_booked() -> None:
    rack = Rack(admission=Scales(4, really={"big": 3}))
    await rack.touch("first", "big", "second")
    async with rack.use("busy"):
        await rack.cache.sweep()
        assert rack.loaded() == {"second", "busy"}, "idle ones go, the longest unused first, until it fits"


async def test_sweep_leaves_busy_models_alone_though_they_take_too_much() -> None:
    rack = Rack(admission=Scales(1, really={"big": 3}))
    async with rack.use("big") as worker:
        await rack.cache.sweep()
        assert (rack.loaded(), worker.unloaded) == ({"big"}, 0)


async def test_the_sweeper_sweeps_by_itself() -> None:
    rack = Rack(ttl=0.05)
    await rack.touch("a")
    sweeper = asyncio.create_task(rack.cache.sweep_forever())
    await until(lambda: not rack.loaded())
    sweeper.cancel()
    assert rack.workers["a"].unloaded == 1


async def test_idle_seconds_count_from_the_last_release() -> None:
    rack = Rack()
    async with rack.use("a"):
        rack.grow_older("a", 100)
        (entry,) = rack.cache.entries()
        assert entry.idle_seconds == 0.0
    assert entry.idle_seconds < 50
    rack.grow_older("a", 100)
    assert 100 <= entry.idle_seconds < 150


async def test_a_failed_load_reaches_everybody_who_waits() -> None:
    rack = Rack()
    rack.failure = ModelLoadError("no config.json")
    rack.gate.clear()
    requests = [asyncio.create_task(rack.touch("a")) for _ in range(5)]
    await settle()
    rack.gate.set()
    assert await asyncio.gather(*requests, return_exceptions=True) == [rack.failure] * 5
    assert rack.loads == {"a": 1}


async def test_a_failed_load_is_not_remembered() -> None:
    rack = Rack()
    rack.failure = ModelLoadError("no config.json")
    with pytest.raises(ModelLoadError):
        await rack.touch("a")
    assert rack.cache.entries() == []
    rack.failure = None
    await rack.touch("a")
    assert rack.loads == {"a": 2}


@pytest.mark.parametrize("left", [0, 3])
async def test_who_gives_up_waiting_does_not_stop_the_load(left: int) -> None:
    rack, release = Rack(), asyncio.Event()
    release.set()
    rack.gate.clear()
    staying = [asyncio.create_task(hold(rack, "a", release)) for _ in range(left)]
    leaving = asyncio.create_task(hold(rack, "a", release))
    await settle()
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    rack.gate.set()
    assert await asyncio.gather(*staying) == ["a"] * left
    await settle()
    assert rack.loaded() == {"a"}
    assert rack.loads == {"a": 1}


async def test_a_failure_that_nobody_waits_for_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    rack = Rack()
    rack.failure = ModelLoadError("no config.json")
    rack.gate.clear()
    leaving = asyncio.create_task(rack.touch("a"))
    await settle()
    leaving.cancel()
    rack.gate.set()
    await settle()
    assert rack.cache.entries() == []
    assert caplog.records == []  # asyncio would complain of an exception never retrieved


async def test_an_error_inside_the_block_keeps_the_model() -> None:
    rack = Rack()
    with pytest.raises(ValueError, match="bad input"):
        async with rack.use("a"):
            raise ValueError("bad input")
    assert rack.loaded() == {"a"}
    assert rack.cache.entries()[0].in_use == 0


async def test_clear_counts_and_unloads() -> None:
    rack = Rack(max_size=3)
    await rack.touch("a", "b", "c")
    assert await rack.cache.clear() == 3
    assert len(rack.cache) == 0
    assert [worker.unloaded for worker in rack.workers.values()] == [1, 1, 1]


async def test_clear_counts_a_busy_model_and_unloads_it_on_release() -> None:
    rack = Rack()
    await rack.touch("idle")
    async with rack.use("busy") as worker:
        assert await rack.cache.clear() == 2
        assert len(rack.cache) == 0
        assert worker.unloaded == 0
    await settle()
    assert worker.unloaded == 1


async def test_after_clear_a_busy_model_is_loaded_anew_and_the_old_one_leaves_the_new_alone() -> None:
    rack = Rack()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(rack.use("a"))
        await rack.cache.clear()
        await rack.touch("a")
        new = rack.workers["a"]
        assert new is not old
    await settle()
    assert (old.unloaded, new.unloaded) == (1, 0)
    assert rack.loaded() == {"a"}


async def test_a_model_that_is_loading_survives_clear() -> None:
    rack = Rack()
    rack.gate.clear()
    request = asyncio.create_task(rack.touch("a"))
    await settle()
    assert await rack.cache.clear() == 0
    rack.gate.set()
    await request
    assert rack.loads == {"a": 1}


async def test_abandon_forgets_without_unloading() -> None:
    rack = Rack()
    await rack.touch("a")
    rack.cache.abandon()
    assert rack.cache.entries() == []
    assert (rack.workers["a"].abandoned, rack.workers["a"].unloaded) == (True, 0)
