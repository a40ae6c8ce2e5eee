"""What `progress` raises ends an upload or a checkout soon, comes out unchanged, and leaves nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.core.errors import CancelledError, StoreUnavailableError
from src.core.stores import blobs, hashing
from src.core.stores.hashing import CHUNK, Meter, in_parallel
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]

BIG = {name: name.encode() * (6 * CHUNK) for name in "abcd"}
REASONS = [
    CancelledError("the job was cancelled"),
    TimeoutError("too slow"),
    StoreUnavailableError("my own"),
    SystemExit(3),
]


class Cancelling:
    """Raises a reason at the given call, and counts the calls."""

    def __init__(self, reason: BaseException, at: int = 1) -> None:
        self.reason, self.at, self.calls = reason, at, 0

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise self.reason


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pieces that go through sha256."""
    sizes: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.update: Callable[[memoryview], Any] = lambda view: sizes.append(len(view))
            self.hexdigest: Callable[[], str] = lambda: "0" * 64

    monkeypatch.setattr(hashing, "hashlib", SimpleNamespace(sha256=Counting))
    return sizes


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes checkouts copies, as on a filesystem of their own."""
    monkeypatch.setattr(blobs, "_cloned", lambda blob, target: False)
    monkeypatch.setattr(blobs, "_linked", lambda blob, target: False)


@pytest.mark.parametrize("reason", REASONS, ids=repr)
def test_upload_raises_the_reason_itself_and_leaves_nothing(
    store: LocalStore, plant: Plant, reason: BaseException
) -> None:
    source = plant(BIG)
    with pytest.raises(type(reason)) as caught:
        store.upload("repo", source, progress=Cancelling(reason, at=3))
    assert caught.value is reason
    assert (store.list_repos(), list((store.root / "tmp").iterdir())) == ([], [])
    store.upload("repo", source)
    assert store.verify("repo", "main")


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize("reason", REASONS, ids=repr)
def test_checkout_raises_the_reason_itself_and_leaves_nothing(
    store: LocalStore, plant: Plant, tmp_path: Path, reason: BaseException
) -> None:
    commit = store.upload("repo", plant(BIG))
    target = tmp_path / "models/out"
    with pytest.raises(type(reason)) as caught:
        store.checkout("repo", "main", target, progress=Cancelling(reason, at=3))
    assert caught.value is reason
    assert [path.name for path in target.parent.iterdir()] == [".out.checkout.lock"]
    assert store.checkout("repo", "main", target) == commit
    assert (target / "a").read_bytes() == BIG["a"]


def test_cancelled_checkout_leaves_the_old_tree(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    store.upload("repo", plant({"a": b"old"}))
    store.checkout("repo", "main", tmp_path / "out")
    store.upload("repo", plant(BIG))
    with pytest.raises(KeyError):
        store.checkout("repo", "main", tmp_path / "out", progress=Cancelling(KeyError(), at=2))
    assert (tmp_path / "out/a").read_bytes() == b"old"


def test_other_threads_stop_within_a_chunk(
    store: LocalStore, plant: Plant, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_threads", lambda: 3)
    progress = Cancelling(KeyError())
    with pytest.raises(KeyError):
        store.upload("repo", plant(BIG), progress=progress)
    assert progress.calls == 1
    assert len(hashed) <= 3


def test_comparing_with_what_is_stored_can_be_cancelled_too(store: LocalStore, plant: Plant) -> None:
    store.upload("repo", plant({"a": BIG["a"]}))
    source = plant({"b": BIG["a"]})
    progress = Cancelling(KeyError(), at=8)  # the file's six chunks have been read by then
    with pytest.raises(KeyError):
        store.upload("repo", source, progress=progress)
    assert progress.calls == 8


def test_error_in_one_thread_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_threads", lambda: 2)
    meter = Meter(0)
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise KeyError(item)
        while True:
            meter.add(1)

    with pytest.raises(KeyError):
        in_parallel(work, range(100), meter)
    assert sorted(begun) == [0, 1]


def test_counting_goes_on_raising_the_first_reason() -> None:
    first = KeyError("first")
    meter = Meter(10, Cancelling(first))
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            meter.add(1)
        assert caught.value is first
    meter.stop(ValueError("later"))
    with pytest.raises(KeyError):
        meter.check()
