"""How long a resolution is believed, and how changes by others are noticed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import InvalidInputError, ModelNotFoundError
from src.core.mlflow_registry import MlflowRegistry
from src.core.registry.cache import ResolutionCache
from src.core.registry.snapshot import SnapshotEntry
from src.core.registry.sqlite_guard import Fingerprint
from src.core.registry.versions import RegisteredModel, RegisteredVersion
from tests.unit.core.conftest import Make

SOURCE = "lakefs://repo/0123abcd/"
ONE, TWO = Fingerprint((1, 2, 3), 4), Fingerprint((1, 2, 3), 5)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("src.core.registry.cache.time", clock)
    return clock


def entry(number: str = "1", fingerprint: Fingerprint | None = None) -> SnapshotEntry:
    version = RegisteredVersion("m", number, SOURCE, {})
    return SnapshotEntry(RegisteredModel.of("m", "m", [version], {"production": number}), fingerprint, 0.0)


def remote(clock: Clock, ttl: float = 5.0) -> ResolutionCache:
    cache = ResolutionCache(ttl, None)
    cache.put(entry())
    return cache


def test_within_its_ttl_a_resolution_is_as_good_as_asking(clock: Clock) -> None:
    cache = remote(clock)
    clock.now += 4.9

    assert cache.current("m") is not None
    assert not cache.is_stale("m")


def test_past_its_ttl_a_resolution_is_served_but_stale(clock: Clock) -> None:
    cache = remote(clock)
    clock.now += 5.1

    assert cache.get("m", degraded=False) is not None
    assert cache.is_stale("m")
    assert cache.current("m") is None


@pytest.mark.parametrize(("ttl", "longest"), [(5.0, 60.0), (30.0, 300.0)])
def test_one_that_was_not_asked_for_long_has_to_be_resolved(clock: Clock, ttl: float, longest: float) -> None:
    cache = remote(clock, ttl)
    clock.now += longest
    assert cache.get("m", degraded=False) is not None
    clock.now += 0.1
    assert cache.get("m", degraded=False) is None


def test_on_a_file_a_resolution_is_current_as_long_as_the_file_is_unchanged(clock: Clock) -> None:
    present = ONE
    cache = ResolutionCache(5.0, lambda: present)
    cache.put(entry(fingerprint=ONE))
    clock.now += 10_000

    assert cache.current("m") is not None
    present = TWO
    assert cache.current("m") is None
    assert cache.is_stale("m")
    assert cache.get("m", degraded=False) is not None
    clock.now += 61
    assert cache.get("m", degraded=False) is None


def test_a_stand_in_is_served_with_its_warning_while_the_registry_is_degraded(clock: Clock) -> None:
    cache = remote(clock)
    cache.put(entry(), warning="from the snapshot")
    clock.now += 10_000

    resolution = cache.get("m", degraded=True)

    assert resolution is not None
    assert resolution.warnings == ("from the snapshot",)
    assert cache.is_stale("m")
    assert cache.current("m") is None
    assert cache.get("m", degraded=False) is None


def test_a_model_read_anew_replaces_every_resolution_of_it(clock: Clock) -> None:
    cache = remote(clock)
    for reference in ("m", "m@production", "m@1"):
        assert cache.current(reference)

    cache.put(entry("2"))

    assert [getattr(cache.current(r), "registered", None) is not None for r in ("m", "m@production", "m@1")] == [
        True, True, False,
    ]  # fmt: skip
    assert cache.current("m").registered.version == "2"  # type: ignore[union-attr]


def test_what_is_not_there_or_no_reference_is_not_cached(clock: Clock) -> None:
    cache = remote(clock)

    assert [cache.get(reference, degraded=False) for reference in ("other", "m@7", "m@nothing", "", "@", "a@b@c")] == (
        [None] * 6
    )
    assert not cache.is_stale("other")


def test_a_miss_is_remembered_for_a_second(clock: Clock) -> None:
    cache = remote(clock)
    cache.put_missed("other", ModelNotFoundError("no", details={"near": []}), None)

    first, second = cache.missed("other"), cache.missed("other")

    assert str(first) == str(second) == "no"
    assert first is not second
    clock.now += 1.1
    assert cache.missed("other") is None


def test_a_miss_is_forgotten_when_the_file_changes_or_something_is_read(clock: Clock) -> None:
    present = ONE
    cache = ResolutionCache(5.0, lambda: present)
    cache.put_missed("other", ModelNotFoundError("no"), ONE)
    assert cache.missed("other")
    present = TWO
    assert cache.missed("other") is None
    present = ONE
    cache.put(entry())
    assert cache.missed("other") is None


# ---------------------------------------------------------------------- on a real registry


def _seen(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_alias_that_others_moved_is_noticed_by_the_file(make_registry: Make, folder: Path) -> None:
    from mlflow import MlflowClient

    registry = make_registry()
    for stage in ("production", "staging"):
        registry.register("m", source=SOURCE, tags={}, stage=stage)
    assert registry.resolve("m").registered.version == "1"
    assert not registry.stale("m")

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    client.set_registered_model_alias("m", "production", "2")

    assert _seen(lambda: registry.stale("m"))
    cached = registry.cached("m")
    assert cached is not None
    assert cached.registered.version == "1"
    refreshed = registry.refresh("m")
    assert refreshed is not None
    assert refreshed.registered.version == "2"
    assert registry.cached("m") == refreshed
    assert not registry.stale("m")


def test_a_model_that_others_deleted_is_gone_after_a_refresh(make_registry: Make, folder: Path) -> None:
    from mlflow import MlflowClient

    registry = make_registry()
    for name in ("m", "other"):
        registry.register(name, source=SOURCE, tags={})
        registry.resolve(name)

    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").delete_registered_model("m")

    assert _seen(lambda: registry.stale("m"))
    assert registry.refresh("m") is None
    assert registry.cached("m") is None
    with pytest.raises(ModelNotFoundError):
        registry.resolve("m")


@pytest.mark.slow
def test_an_alias_that_others_moved_on_a_server_is_seen_after_the_ttl(
    make_registry: Make, mlflow_server: str, name: str
) -> None:
    reader, writer = make_registry(mlflow_server, ttl=0.5), make_registry(mlflow_server)
    for stage in ("production", "staging"):
        writer.register(name, source=SOURCE, tags={}, stage=stage)
    assert reader.resolve(name).registered.version == "1"
    writer.set_stage(name, "2", "production")

    assert reader.resolve(name).registered.version == "1"
    assert _seen(lambda: reader.stale(name))
    assert reader.cached(name) is not None
    assert reader.resolve(name).registered.version == "2"
    assert not reader.stale(name)


def test_many_cold_requests_ask_once(make_registry: Make, monkeypatch: Any) -> None:
    registry = make_registry()
    registry.register("m", source=SOURCE, tags={})
    registry._cache.drop("m")
    asked = []
    read = type(registry)._read

    def counted(self: MlflowRegistry, *arguments: Any, **options: Any) -> RegisteredModel:
        asked.append(arguments)
        time.sleep(0.05)
        return read(self, *arguments, **options)

    monkeypatch.setattr(type(registry), "_read", counted)
    with ThreadPoolExecutor(50) as threads:
        versions = {r.registered.version for r in threads.map(lambda _: registry.resolve("m"), range(50))}

    assert versions == {"1"}
    assert len(asked) == 1


def test_what_is_no_reference_is_refused_by_resolve_and_unknown_to_cached(make_registry: Make) -> None:
    registry = make_registry()

    assert registry.cached("a@b@c") is None
    with pytest.raises(InvalidInputError):
        registry.resolve("a@b@c")
