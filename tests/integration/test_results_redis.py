"""Results in a real Redis: shared, bounded, and nothing worse than a miss when it is away."""

import asyncio
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from src.core.settings_sections import ResultSettings
from src.inference.results import ResultCache
from src.inference.results_redis import NAMESPACE, PATIENCE
from tests.redis_server import redis_server, redis_url
from tests.service import ROOT, free_port
from tests.waiting import until

pytestmark = pytest.mark.anyio

VALUE = {"result": {"text": "é"}, "warnings": []}
SECRET = "geheim"
# Ten times what the first question to a Redis that hangs may cost; all others together cost less.
AT_MOST = 10 * PATIENCE


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, needs_program: Callable[[str], None]) -> Iterator[int]:
    needs_program("redis-server")
    port = free_port()
    with redis_server(tmp_path_factory.mktemp("redis"), port):
        yield port


@pytest.fixture
def raw(port: int) -> Iterator[Redis]:
    """A client of its own on an empty server."""
    with Redis(port=port) as client:
        client.flushall()
        yield client


@asynccontextmanager
async def results(port: int, *, password: str = "", **settings: Any) -> AsyncIterator[ResultCache]:
    cache = ResultCache(ResultSettings(redis_url=redis_url(port, password), **settings))
    try:
        await cache.start()
        yield cache
    finally:
        await cache.aclose()


async def arrives(raw: Redis, key: str) -> Any:
    """Returns what lies under a key of ours, once it is there."""
    await until(lambda: bool(raw.exists(NAMESPACE + key)))
    return raw.get(NAMESPACE + key)


async def test_a_result_is_json_in_our_namespace_and_ends(port: int, raw: Redis) -> None:
    async with results(port, ttl=60) as cache:
        await cache.put("k", VALUE)
        assert await cache.get("k") == VALUE  # also while it is on its way
        assert json.loads(await arrives(raw, "k")) == VALUE
        assert 50_000 < raw.pttl(NAMESPACE + "k") <= 60_000
        assert [*raw.scan_iter()] == [(NAMESPACE + "k").encode()]
        stats = cache.stats()
        assert (stats["backend"], stats["hits"], stats["entries"]) == ("redis", 1, None)


async def test_a_result_is_gone_after_its_time(port: int, raw: Redis) -> None:
    async with results(port, ttl=0.2) as cache:
        await cache.put("k", VALUE)
        await arrives(raw, "k")
        await until(lambda: not raw.exists(NAMESPACE + "k"))
        assert await cache.get("k") is None


async def test_two_processes_share_results(port: int, raw: Redis) -> None:
    script = f"""
import asyncio
from src.core.settings_sections import ResultSettings
from src.inference.results import ResultCache

async def main():
    cache = ResultCache(ResultSettings(redis_url={redis_url(port)!r}))
    await cache.start()
    print(await cache.get("ours"))
    await cache.put("theirs", {VALUE!r})
    await cache.aclose()

asyncio.run(main())
"""
    async with results(port) as cache:
        await cache.put("ours", VALUE)
        await arrives(raw, "ours")
        command = [sys.executable, "-W", "error", "-c", script]
        done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(VALUE)
        assert await cache.get("theirs") == VALUE


async def test_clearing_leaves_alone_what_is_not_ours(port: int, raw: Redis) -> None:
    raw.mset({"other": "1", "aiml:resultsX": "1", "x" + NAMESPACE: "1"})
    raw.mset({f"{NAMESPACE}{number}": "1" for number in range(2500)})
    async with results(port) as cache:
        assert await cache.clear() == 2500
        assert sorted(raw.scan_iter()) == [b"aiml:resultsX", b"other", ("x" + NAMESPACE).encode()]


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x80\x04nonsense", b"{", b"null", b"[1]", b'"text"', b"\xff\xfe", b"[" * 5000, b"__import__('os')"],
)
async def test_garbage_is_as_good_as_nothing(port: int, raw: Redis, garbage: bytes) -> None:
    raw.set(NAMESPACE + "k", garbage)
    async with results(port) as cache:
        assert await cache.get("k") is None
        await cache.put("k", VALUE)
        await until(lambda: raw.get(NAMESPACE + "k") != garbage)
        assert await cache.get("k") == VALUE


async def test_a_pickle_is_not_executed(port: int, raw: Redis, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    raw.set(NAMESPACE + "k", pickle.dumps(Bomb(folder)))
    async with results(port) as cache:
        assert await cache.get("k") is None
    assert not folder.exists()
    pickle.loads(await arrives(raw, "k"))  # it would have
    assert folder.exists()


async def test_something_that_is_no_text_or_too_large_is_as_good_as_nothing(port: int, raw: Redis) -> None:
    raw.lpush(NAMESPACE + "list", "a")
    raw.set(NAMESPACE + "large", json.dumps({"text": "x" * 5000}))
    async with results(port, max_entry_mb=0.004) as cache:
        assert await cache.get("list") is None
        assert await cache.get("large") is None
        assert (await cache.dependency())["status"] == "ok"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_redis_that_dies_is_a_miss_and_one_that_comes_back_is_used_again(
    tmp_path: Path, needs_program: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    needs_program("redis-server")
    port = free_port()
    with redis_server(tmp_path, port) as first:
        async with results(port) as cache:
            await cache.put("k", VALUE)
            await until(lambda: not cache._redis._writes)  # type: ignore[union-attr]
            assert await cache.get("k") == VALUE
            first.kill()
            first.wait()
            started = time.monotonic()
            answers = await asyncio.gather(*(cache.get("k") for _ in range(50)))
            answers += [await cache.get("k") for _ in range(50)]
            await cache.put("k", VALUE)
            assert time.monotonic() - started < AT_MOST
            assert answers == [None] * 100
            assert await cache.clear() is None
            health = await cache.dependency()
            assert (health["configured"], health["status"], health["degrades"]) == (True, "unreachable", True)
            assert len(warnings_of(caplog)) == 1
            with redis_server(tmp_path, port):
                await comes_back(cache)
                await cache.put("k", VALUE)
                assert await cache.get("k") == VALUE
                assert (await cache.dependency())["status"] == "ok"
            assert len(warnings_of(caplog)) == 1


async def comes_back(cache: ResultCache) -> None:
    """Asks as requests would until Redis is in use."""
    async with asyncio.timeout(15):
        while cache._redis is not None and not cache._redis.is_up:
            await cache.get("k")
            await asyncio.sleep(0.05)


async def test_a_redis_that_hangs_costs_one_moment_and_is_used_again_when_it_goes_on(
    tmp_path: Path, needs_program: Callable[[str], None], figure: Callable[[str], None]
) -> None:
    needs_program("redis-server")
    port = free_port()
    with redis_server(tmp_path, port) as process:
        async with results(port) as cache:
            await cache.put("k", VALUE)
            assert await cache.get("k") == VALUE
            process.send_signal(signal.SIGSTOP)
            try:
                started = time.monotonic()
                first = [await cache.get("other")]
                after_first = time.monotonic()
                rest = [await cache.get("other") for _ in range(200)]
                await cache.put("other", VALUE)
                took = time.monotonic() - after_first
            finally:
                process.send_signal(signal.SIGCONT)
            assert first + rest == [None] * 201
            assert after_first - started < AT_MOST
            assert took < PATIENCE
            figure(f"a Redis that hangs: {after_first - started:.2f} s once, then {took / 200 * 1e6:.0f} us a request")
            await comes_back(cache)
            assert await cache.get("k") == VALUE


async def test_a_redis_that_was_never_there_is_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    async with results(free_port()) as cache:
        assert await cache.get("k") is None
        await cache.put("k", VALUE)
        assert (await cache.dependency())["degrades"]
    assert len(warnings_of(caplog)) == 1


async def test_a_wrong_password_is_told_without_telling_it(
    tmp_path: Path, needs_program: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    needs_program("redis-server")
    port = free_port()
    with redis_server(tmp_path, port, "--requirepass", "right"):
        async with results(port, password="right") as cache:
            assert (await cache.dependency())["status"] == "ok"
        async with results(port, password=SECRET) as cache:
            assert await cache.get("k") is None
            health = await cache.dependency()
    assert health["status"] == "unreachable"
    assert "password" in health["reason"]
    assert SECRET not in health["reason"] + caplog.text + repr(cache._settings)


async def test_a_full_redis_is_read_but_health_tells(
    tmp_path: Path, needs_program: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    needs_program("redis-server")
    port = free_port()
    with redis_server(tmp_path, port) as _, Redis(port=port) as raw:
        async with results(port) as cache:
            await cache.put("k", VALUE)
            await arrives(raw, "k")
            raw.config_set("maxmemory", "1mb")  # less than an empty server takes
            for number in range(20):
                await cache.put(f"more-{number}", VALUE)
            await until(lambda: not cache._redis._writes)  # type: ignore[union-attr]
            assert await cache.get("k") == VALUE
            assert await cache.get("more-1") is None
            health = await cache.dependency()
            assert (health["status"], health["degrades"]) == ("degraded", True)
            assert "takes no values" in health["reason"]
            assert len(warnings_of(caplog)) == 1
            raw.config_set("maxmemory", "0")
            await cache.put("more", VALUE)
            await arrives(raw, "more")
            await until(lambda: not cache._redis._writes)  # type: ignore[union-attr]
            assert (await cache.dependency())["status"] == "ok"


def test_it_may_be_used_from_one_event_loop_after_another(port: int, raw: Redis) -> None:
    cache = ResultCache(ResultSettings(redis_url=redis_url(port)))

    async def use() -> Any:
        await cache.put("k", VALUE)
        found = await cache.get("k")
        await cache.aclose()
        return found

    assert asyncio.run(use()) == VALUE
    assert asyncio.run(use()) == VALUE


async def test_a_forked_process_has_connections_of_its_own(port: int, raw: Redis) -> None:
    async with results(port) as cache:
        await cache.put("k", VALUE)
        await arrives(raw, "k")
        pid = os.fork()
        if pid == 0:
            cache.abandon()
            os._exit(0 if asyncio.run(cache.get("k")) == VALUE else 1)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        assert await cache.get("k") == VALUE
        assert (await cache.dependency())["status"] == "ok"
