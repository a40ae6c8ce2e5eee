"""Patience, a crew of threads, and a hub that sends what it should not."""

import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import UnavailableError
from src.core.sources.hub_crew import aside, together
from src.core.sources.hub_files import HubFile
from src.core.sources.hub_partial import PartialFolder
from src.core.sources.hub_patience import PassingError, Patience, StoppedError
from src.core.sources.hub_transfer import DamagedError, Tally, Transfer

CONTENT = b"the right bytes"


def file_of(content: bytes, path: str = "a.bin") -> HubFile:
    return HubFile(path, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


class Sends:
    """A hub that sends what it is told to; `starts` are the positions it was asked for."""

    def __init__(self, *answers: Any, ranges: bool = True) -> None:
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self._ranges = ranges
        self.starts: list[int] = []

    @contextmanager
    def content(self, commit: str, path: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        self.starts.append(start)
        begin = start if self._ranges else 0
        answer = next(self._answers)
        yield begin, iter([answer[begin:]]) if isinstance(answer, bytes) else answer


def transfer(hub: Sends, folder: Path, pauses: tuple[float, ...] = (0.0,), **given: Any) -> Transfer:
    patience = Patience(pauses)
    client: Any = hub
    return Transfer(client, "c" * 40, PartialFolder(folder), patience=patience, tally=Tally(0), **given)


def test_a_file_arrives(tmp_path: Path) -> None:
    transfer(Sends(CONTENT), tmp_path).bring(file_of(CONTENT, "sub/a.bin"))
    assert (tmp_path / "tree/sub/a.bin").read_bytes() == CONTENT


def test_an_early_end_is_gone_on_from(tmp_path: Path) -> None:
    hub = Sends(CONTENT[:4], CONTENT[:7], CONTENT)
    transfer(hub, tmp_path).bring(file_of(CONTENT))
    assert hub.starts == [0, 4, 7]


def test_a_server_without_ranges_begins_again(tmp_path: Path) -> None:
    hub = Sends(CONTENT[:4], CONTENT, ranges=False)
    bringing = transfer(hub, tmp_path)
    bringing.bring(file_of(CONTENT))
    assert hub.starts == [0, 4]
    assert bringing._tally.done == len(CONTENT)


def test_wrong_bytes_are_fetched_anew_three_times_in_all(tmp_path: Path) -> None:
    hub = Sends(CONTENT[::-1])
    bringing = transfer(hub, tmp_path)
    with pytest.raises(DamagedError):
        bringing.bring(file_of(CONTENT))
    assert (hub.starts, bringing.damaged, bringing._tally.done) == ([0, 0, 0], ["a.bin"], 0)
    assert not list((tmp_path / "arriving").iterdir())


def test_wrong_bytes_of_an_earlier_time_cost_no_try(tmp_path: Path) -> None:
    file, hub = file_of(CONTENT), Sends(CONTENT, CONTENT[::-1], CONTENT[::-1], CONTENT)
    bringing = transfer(hub, tmp_path)
    PartialFolder(tmp_path).arriving(file).write_bytes(b"bad")
    bringing._tally.add(3)
    bringing.bring(file)
    assert hub.starts == [3, 0, 0, 0]
    assert bringing._tally.done == len(CONTENT)


def test_a_stream_without_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        while True:
            given += 1000
            yield bytes(1000)

    with pytest.raises(DamagedError):
        transfer(Sends(endless()), tmp_path).bring(file_of(CONTENT))
    assert given == 3000


def test_the_same_content_elsewhere_is_copied(tmp_path: Path) -> None:
    file, hub = file_of(CONTENT), Sends(CONTENT)
    (tmp_path / "older").mkdir()
    (tmp_path / "older/a.bin").write_bytes(CONTENT)
    transfer(hub, tmp_path / "new", older=(tmp_path / "older", {"a.bin": file.digest})).bring(file)
    assert hub.starts == []
    assert (tmp_path / "new/tree/a.bin").read_bytes() == CONTENT


def test_a_copy_that_was_changed_meanwhile_is_fetched(tmp_path: Path) -> None:
    file, hub = file_of(CONTENT), Sends(CONTENT)
    (tmp_path / "older").mkdir()
    (tmp_path / "older/a.bin").write_bytes(CONTENT[::-1])
    transfer(hub, tmp_path / "new", older=(tmp_path / "older", {"a.bin": file.digest})).bring(file)
    assert hub.starts == [0]
    assert (tmp_path / "new/tree/a.bin").read_bytes() == CONTENT


# ------------------------------------------------------------------ patience


def test_patience_ends_after_its_pauses() -> None:
    tries = 0

    def fail() -> None:
        nonlocal tries
        tries += 1
        raise PassingError("the hub is away")

    with pytest.raises(UnavailableError, match="the hub is away"):
        Patience((0.0, 0.0, 0.0)).persist(fail)
    assert tries == 4


def test_patience_begins_anew_while_something_comes() -> None:
    gained = 0

    def gain() -> int:
        nonlocal gained
        gained += 1
        if gained < 20:
            raise PassingError("cut")
        return gained

    assert Patience((0.0,)).persist(gain, lambda: gained) == 20


def test_patience_waits_as_long_as_it_was_asked_to() -> None:
    answers = iter([PassingError("busy", wait=0.2), None])

    def ask() -> None:
        if answer := next(answers):
            raise answer

    began = time.monotonic()
    Patience((0.0,)).persist(ask)
    assert time.monotonic() - began >= 0.2


def test_stopping_ends_a_pause() -> None:
    patience = Patience((3600.0,))
    threading.Timer(0.05, patience.stop.set).start()

    def fail() -> None:
        raise PassingError("away")

    with pytest.raises(StoppedError):
        patience.persist(fail)


# ------------------------------------------------------------------ the crew


def test_every_item_is_worked_on_once() -> None:
    done: list[int] = []
    together(done.append, range(1000), threads=4, stop=threading.Event(), tick=lambda: None)
    assert sorted(done) == list(range(1000))


def test_the_first_error_stops_the_others() -> None:
    stop = threading.Event()

    def work(item: int) -> None:
        if item == 3:
            raise KeyError("broken")
        if stop.wait(0.001 if item < 3 else 30):
            raise StoppedError

    with pytest.raises(KeyError, match="broken"):
        together(work, itertools.count(), threads=4, stop=stop, tick=lambda: None)


@pytest.mark.parametrize("error", [TimeoutError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_what_the_watcher_raises_stops_all_and_comes_out_itself(error: BaseException) -> None:
    stop = threading.Event()

    def tick() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        together(lambda _: stop.wait(30), range(9), threads=4, stop=stop, tick=tick)
    assert caught.value is error


def test_work_aside_is_left_to_itself_when_nobody_waits() -> None:
    stop, free = threading.Event(), threading.Event()

    def tick() -> None:
        raise TimeoutError

    try:
        with pytest.raises(TimeoutError):
            aside(lambda: free.wait(30), stop=stop, tick=tick)
        assert stop.is_set()
    finally:
        free.set()


def test_work_aside_returns_its_value() -> None:
    assert aside(lambda: 5, stop=threading.Event(), tick=lambda: None) == 5
