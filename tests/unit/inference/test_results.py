"""Results in this process: which are kept, how many, how long."""

import math
from typing import Any

import numpy as np
import pytest

from src.core import metrics
from src.core.settings_sections import ResultSettings
from src.inference.results import ResultCache
from src.inference.results_memory import ENTRY_OVERHEAD, MemoryResults

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def memory(entries: int, size: int = 1000, ttl: float = 60.0, clock: Clock | None = None) -> MemoryResults:
    """Returns a cache with room for so many values of so many bytes."""
    return MemoryResults(entries * (size + ENTRY_OVERHEAD), ttl, clock or Clock())


def test_the_least_recently_used_makes_room() -> None:
    kept = memory(3)
    for key in "abc":
        kept.put(key, b"x" * 1000)
    assert kept.get("a") is not None
    kept.put("d", b"x" * 1000)
    assert [key for key in "abcd" if kept.get(key)] == ["a", "c", "d"]


def test_a_large_value_takes_the_room_of_several_small_ones() -> None:
    kept = memory(4)
    for key in "abcd":
        kept.put(key, b"x" * 1000)
    kept.put("large", b"x" * (2 * 1000 + ENTRY_OVERHEAD))
    assert [key for key in ("a", "b", "c", "d", "large") if kept.get(key)] == ["c", "d", "large"]


def test_bytes_are_counted_and_never_exceed_the_bound() -> None:
    kept = memory(10)
    sizes = [(number * 37) % 3000 for number in range(500)]
    for number, size in enumerate(sizes):
        kept.put(str(number % 40), b"x" * size)
        assert kept.bytes <= 10 * (1000 + ENTRY_OVERHEAD)
    assert kept.bytes == sum(len(value) + ENTRY_OVERHEAD for value, _ in kept._kept.values())
    assert kept.clear() > 0
    assert (kept.bytes, len(kept)) == (0, 0)


def test_a_value_larger_than_everything_is_not_kept_and_pushes_nothing_out() -> None:
    kept = memory(2)
    kept.put("a", b"x" * 1000)
    kept.put("b", b"x" * 100_000)
    assert (kept.get("a"), kept.get("b")) == (b"x" * 1000, None)


def test_a_value_ends_with_its_time_which_reading_it_does_not_prolong() -> None:
    clock = Clock()
    kept = memory(2, ttl=60, clock=clock)
    kept.put("a", b"x")
    clock.now = 59.9
    assert kept.get("a") == b"x"
    clock.now = 60.0
    assert kept.get("a") is None
    assert kept.bytes == 0


def test_a_value_put_again_takes_its_place() -> None:
    kept = memory(2)
    kept.put("a", b"x" * 1000)
    kept.put("a", b"y")
    assert (kept.get("a"), kept.bytes, len(kept)) == (b"y", 1 + ENTRY_OVERHEAD, 1)


async def test_a_kept_value_comes_back_as_a_copy_of_its_own() -> None:
    cache = ResultCache(ResultSettings())
    await cache.put("k", {"text": "é", "scores": [1, 1.0, True, None]})
    first = await cache.get("k")
    assert first is not None
    first["scores"].clear()
    again = await cache.get("k")
    assert again == {"text": "é", "scores": [1, 1.0, True, None]}
    assert [type(score) for score in again["scores"]] == [int, float, bool, type(None)]


@pytest.mark.parametrize(
    "value", [{"a": math.nan}, {"a": (1, 2)}, {"a": np.zeros(2)}, {"a": b"x"}, {1: 2}, {"a": object()}, {"a": 2**80}]
)
async def test_what_json_would_give_back_otherwise_is_not_kept(value: dict[Any, Any]) -> None:
    cache = ResultCache(ResultSettings())
    await cache.put("k", value)
    assert await cache.get("k") is None


async def test_a_result_above_the_bound_for_one_is_not_kept() -> None:
    cache = ResultCache(ResultSettings(max_entry_mb=0.001))
    await cache.put("small", {"text": "x" * 900})
    await cache.put("large", {"text": "x" * 1100})
    assert await cache.get("small") is not None
    assert await cache.get("large") is None


async def test_lookups_are_counted() -> None:
    cache = ResultCache(ResultSettings())
    before = {name: metrics.result_lookup(name)._value.get() for name in ("hit", "miss")}
    await cache.put("k", {"a": 1})
    for key in ("k", "k", "other"):
        await cache.get(key)
    stats = cache.stats()
    assert {name: stats[name] for name in ("backend", "hits", "misses", "entries")} == {
        "backend": "memory", "hits": 2, "misses": 1, "entries": 1,
    }  # fmt: skip
    assert 0 < stats["bytes"] < 1000
    counted = {name: metrics.result_lookup(name)._value.get() - before[name] for name in before}
    assert counted == {"hit": 2, "miss": 1}


async def test_clearing_drops_everything() -> None:
    cache = ResultCache(ResultSettings())
    await cache.put("a", {"a": 1})
    await cache.put("b", {"a": 1})
    assert await cache.clear() == 2
    assert await cache.get("a") is None


async def test_without_redis_health_knows_of_none() -> None:
    assert await ResultCache(ResultSettings()).dependency() == {
        "configured": False, "status": "not configured", "degrades": False,
    }  # fmt: skip
