"""The ledger of promised memory, the refusal, and the measured peaks on disk."""

import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.core.file_lock import file_locked
from src.inference import admission
from src.inference.admission import Ledger, PeakRecords, Reservation, refusal
from src.inference.vram_estimator import MemoryEstimate

GB = 1000**3


class FakeGauge:
    """A machine whose free memory is what the test says."""

    def __init__(self, **free: int | None) -> None:
        self.free = {"cpu": None, **{name.replace("cuda", "cuda:"): size for name, size in free.items()}}

    def free_bytes(self, device: str) -> int | None:
        return self.free.get(device)


# -------------------------------------------------------------------------------------------- ledger


def test_what_is_promised_to_a_load_is_not_free_for_another() -> None:
    ledger = Ledger(FakeGauge(cpu=10))
    assert ledger.reserve("a", "cpu", 6) == Reservation("a", "cpu", 6)
    assert ledger.free("cpu") == 4
    assert ledger.shortfall("cpu", 4) == 0
    assert ledger.shortfall("cpu", 5) == 1
    assert ledger.reserve("b", "cpu", 5) is None
    assert ledger.booked("cpu") == 6
    assert ledger.reserve("b", "cpu", 4) is not None
    assert ledger.free("cpu") == 0


def test_a_loaded_model_that_shows_in_the_measurement_counts_once() -> None:
    gauge = FakeGauge(cpu=10)
    ledger = Ledger(gauge)
    ledger.reserve("a", "cpu", 6)
    gauge.free["cpu"] = 4
    assert ledger.free("cpu") == 0  # as long as nobody says that this is the model itself
    ledger.settle("a", 6)
    assert ledger.free("cpu") == 4
    assert ledger.booked("cpu") == 6


def test_a_load_under_way_counts_once_as_far_as_it_shows() -> None:
    gauge = FakeGauge(cpu=10)
    ledger = Ledger(gauge)
    ledger.reserve("a", "cpu", 6)
    gauge.free["cpu"] = 8
    ledger.progress("a", 2)
    assert ledger.free("cpu") == 4
    gauge.free["cpu"] = 3
    ledger.progress("a", 7)  # more than was promised: the measurement has it
    assert ledger.free("cpu") == 3


def test_memory_that_the_measurement_cannot_see_stays_promised() -> None:
    gauge = FakeGauge(cpu=10)
    ledger = Ledger(gauge)
    ledger.reserve("a", "cpu", 6)
    gauge.free["cpu"] = 9
    ledger.settle("a", 5, shown_bytes=1)  # 4 of the 5 are mapped weights
    assert ledger.free("cpu") == 5
    assert ledger.reservations() == [Reservation("a", "cpu", 5, shown_bytes=1, settled=True)]


def test_a_measured_model_takes_what_it_takes() -> None:
    ledger = Ledger(FakeGauge(), {"cpu": 10})
    ledger.reserve("a", "cpu", 6)
    ledger.settle("a", 2)
    assert ledger.free("cpu") == 8
    ledger.settle("a", 12)  # it has grown past the budget, and that is so
    assert (ledger.free("cpu"), ledger.booked("cpu")) == (0, 12)
    assert ledger.shortfall("cpu", 3) == 5
    ledger.settle("a", None)
    assert ledger.booked("cpu") == 12


def test_the_budget_holds_though_more_is_free() -> None:
    ledger = Ledger(FakeGauge(cpu=100), {"cpu": 10})
    assert ledger.shortfall("cpu", 12) == 2
    assert ledger.reserve("a", "cpu", 11) is None
    assert ledger.reserve("a", "cpu", 7) is not None
    assert (ledger.free("cpu"), ledger.budget("cpu"), ledger.budget("cuda")) == (3, 10, None)


def test_what_others_use_is_not_free_though_the_budget_has_room() -> None:
    gauge = FakeGauge(cpu=100)
    ledger = Ledger(gauge, {"cpu": 50})
    gauge.free["cpu"] = 7
    assert ledger.free("cpu") == 7


def test_released_memory_is_free_again() -> None:
    ledger = Ledger(FakeGauge(), {"cpu": 10})
    ledger.reserve("a", "cpu", 10)
    ledger.release("a")
    ledger.release("a")
    ledger.release("never")
    assert ledger.free("cpu") == 10
    assert ledger.reserve("a", "cpu", 10) is not None


def test_devices_do_not_share_memory_but_their_names_do() -> None:
    ledger = Ledger(FakeGauge(cpu=10, cuda0=20, cuda1=30))
    ledger.reserve("a", "cuda", 15)
    ledger.reserve("b", "mps", 8)
    assert [ledger.free(name) for name in ("cpu", "mps", "cuda:0", "cuda:1")] == [2, 2, 5, 30]
    assert ledger.booked("cuda:0") == 15


def test_where_nothing_is_known_everything_is_admitted() -> None:
    ledger = Ledger(FakeGauge())
    assert ledger.free("cuda:0") is None
    assert ledger.shortfall("cuda:0", 10**15) == 0
    assert ledger.reserve("a", "cuda:0", 10**15) is not None


def test_nothing_fits_where_nothing_is_free() -> None:
    ledger = Ledger(FakeGauge(cpu=-5))
    assert ledger.shortfall("cpu", 1) == 6
    assert ledger.reserve("empty", "cpu", 0) is not None
    assert ledger.free("cpu") == 0


def test_a_key_has_one_reservation() -> None:
    ledger = Ledger(FakeGauge(cpu=10))
    ledger.reserve("a", "cpu", 1)
    with pytest.raises(ValueError, match="already"):
        ledger.reserve("a", "cpu", 1)
    with pytest.raises(ValueError, match="-1"):
        ledger.reserve("b", "cpu", -1)
    assert ledger.booked("cpu") == 1


def test_a_model_that_was_released_while_it_loaded_leaves_nothing() -> None:
    ledger = Ledger(FakeGauge(cpu=10))
    ledger.reserve("a", "cpu", 5)
    ledger.release("a")
    ledger.progress("a", 3)
    ledger.settle("a", 5)
    assert ledger.reservations() == []


class World:
    """A machine whose models really take what the ledger is told, step by step."""

    def __init__(self, size: int, budget: int | None) -> None:
        self.size, self.most = size, size if budget is None else min(size, budget)
        self.taken: dict[int, int] = {}
        self.ledger = Ledger(self, {} if budget is None else {"cpu": budget})

    def free_bytes(self, device: str) -> int:
        return self.size - sum(self.taken.values())

    @property
    def promised(self) -> int:
        return sum(each.bytes for each in self.ledger.reservations())

    def step(self, action: str, key: int, amount: int) -> None:
        held = {each.key: each for each in self.ledger.reservations()}.get(key)
        if action == "reserve" and held is None:
            fits = self.promised + amount <= self.most
            assert (self.ledger.shortfall("cpu", amount) == 0) == (fits or amount == 0)
            assert (self.ledger.reserve(key, "cpu", amount) is not None) == (fits or amount == 0)
            self.taken.setdefault(key, 0)
        elif action == "grow" and held is not None:
            self.taken[key] = max(min(amount, held.bytes), self.taken[key])
            self.ledger.progress(key, self.taken[key])
        elif action == "settle" and held is not None:
            # measured: between what shows already and what was promised; the rest of it never shows
            measured = max(min(amount, held.bytes), self.taken[key])
            self.ledger.settle(key, measured, shown_bytes=self.taken[key])
        elif action == "release" and held is not None:
            del self.taken[key]
            self.ledger.release(key)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "grow", "settle", "release"]), st.integers(0, 5), st.integers(0, 60)
    ),
    max_size=60,
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(size=st.integers(0, 120), budget=st.none() | st.integers(0, 120), steps=STEPS)
def test_neither_more_nor_less_is_promised_than_there_is(
    size: int, budget: int | None, steps: list[tuple[str, int, int]]
) -> None:
    world = World(size, budget)
    for step in steps:
        world.step(*step)
        assert world.promised <= world.most
        assert world.free_bytes("cpu") >= 0
        assert world.ledger.free("cpu") == world.most - world.promised


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    budget=st.integers(0, 100),
    steps=st.lists(
        st.tuples(st.sampled_from(["reserve", "release", "gauge"]), st.integers(0, 5), st.integers(-20, 150))
    ),
)
def test_no_measurement_talks_the_ledger_past_the_budget(budget: int, steps: list[tuple[str, int, int]]) -> None:
    gauge = FakeGauge(cpu=100)
    ledger = Ledger(gauge, {"cpu": budget})
    for action, key, amount in steps:
        if action == "gauge":
            gauge.free["cpu"] = amount
        elif action == "release":
            ledger.release(key)
        elif amount >= 0 and key not in {each.key for each in ledger.reservations()}:
            ledger.reserve(key, "cpu", amount)
        assert ledger.booked("cpu") <= budget


def test_who_asks_at_the_same_time_is_not_promised_the_same_memory() -> None:
    ledger = Ledger(FakeGauge(cpu=10), {"cpu": 12})
    barrier = threading.Barrier(16)

    def ask(key: int) -> bool:
        barrier.wait()
        return ledger.reserve(key, "cpu", 1) is not None

    with ThreadPoolExecutor(16) as pool:
        admitted = list(pool.map(ask, range(16)))
    assert sum(admitted) == 10
    assert ledger.booked("cpu") == 10


# ------------------------------------------------------------------------------------------- refusal


def test_a_refusal_says_what_was_needed_what_was_free_and_what_helps() -> None:
    error = refusal("qwen", 8 * GB, 3 * GB, "cuda:0", None, 2 * GB)
    assert error.message.startswith("Model 'qwen' needs 8.00 GB of memory on cuda:0, and 3.00 GB is free.")
    for help_ in ('{"device": "cpu"}', "torch_dtype", "POST /inference/cache/clear gives back 2.00 GB"):
        assert help_ in error.message
    assert "AIML_MEMORY_BUDGET" not in error.message
    assert error.details == {
        "needed_bytes": 8 * GB,
        "free_bytes": 3 * GB,
        "device": "cuda:0",
        "budget_bytes": None,
    }
    assert not error.retryable


def test_a_refusal_names_only_what_would_help() -> None:
    message = refusal("qwen", 8 * GB, -5, "cpu", 4 * GB, 0).message
    assert "0 bytes is free" in message
    assert "raise AIML_MEMORY_BUDGET, now 4.00 GB" in message
    assert '"device"' not in message
    assert "cache/clear" not in message


def test_a_refusal_where_free_memory_is_unknown_says_so() -> None:
    error = refusal("qwen", 8 * GB, None, "cuda:0", 4 * GB, 0)
    assert "unknown" in error.message
    assert error.details["free_bytes"] is None


# --------------------------------------------------------------------------------------------- peaks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "peaks.json"


ESTIMATE = MemoryEstimate(600, 300, 100, "safetensors headers", 150)


def test_a_measured_peak_comes_before_the_estimate(path: Path) -> None:
    records = PeakRecords(path)
    assert records.prefer(ESTIMATE, "sha256:a", "cpu", None) == 1000
    records.record("sha256:a", "cpu", None, 700)
    for known in (records, PeakRecords(path)):
        assert known.prefer(ESTIMATE, "sha256:a", "cpu", "auto") == 700
        assert known.prefer(ESTIMATE, "sha256:a", "mps", None) == 700
        assert known.prefer(ESTIMATE, "sha256:a", "cuda", None) == 1000
        assert known.prefer(ESTIMATE, "sha256:a", "cpu", "float16") == 1000
        assert known.prefer(ESTIMATE, "sha256:b", "cpu", None) == 1000


def test_a_peak_below_the_weights_is_no_measure_of_them(path: Path) -> None:
    records = PeakRecords(path)
    records.record("sha256:a", "cpu", None, 50)
    assert records.prefer(ESTIMATE, "sha256:a", "cpu", None) == 600
    assert records.prefer(MemoryEstimate(600, 0, 0, "file sizes", None), "sha256:a", "cpu", None) == 50


def test_the_highest_peak_stays(path: Path) -> None:
    records = PeakRecords(path)
    for peak in (700, 900, 800):
        records.record("sha256:a", "cuda", "float16", peak)
    assert records.peak("sha256:a", "cuda:0", "float16") == 900
    assert PeakRecords(path).peak("sha256:a", "cuda:0", "float16") == 900


def test_a_model_without_a_digest_has_no_records(path: Path) -> None:
    records = PeakRecords(path)
    records.record(None, "cpu", None, 700)
    assert records.prefer(ESTIMATE, None, "cpu", None) == 1000
    assert not path.exists()


@pytest.mark.parametrize("peak", [0, -1, 2**60])
def test_a_measurement_that_cannot_be_is_not_recorded(path: Path, peak: int) -> None:
    PeakRecords(path).record("sha256:a", "cpu", None, peak)
    assert not path.exists()


ROW = {"digest": "sha256:a", "device": "cpu", "dtype": "auto", "bytes": 5}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b'{"format": 1, "peaks": [{"digest"',
        b"[]",
        b"7",
        b'{"format": 1}',
        b'{"format": 1, "peaks": {"a": 1}}',
        json.dumps({"format": 2, "peaks": [ROW]}).encode(),
        json.dumps({"format": 1, "peaks": [7, None, [], {}, {**ROW, "digest": 1}, {**ROW, "device": None}]}).encode(),
        json.dumps(
            {"format": 1, "peaks": [{**ROW, "bytes": n} for n in (0, -1, 1.5, "5", True, None, 2**63)]}
        ).encode(),
    ],
)
def test_garbage_in_the_file_counts_as_nothing(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    records = PeakRecords(path)
    assert records.peak("sha256:a", "cpu", None) is None
    records.record("sha256:b", "cpu", None, 9)
    assert PeakRecords(path).peak("sha256:b", "cpu", None) == 9


def test_a_file_of_any_length_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PeakRecords(path).record("sha256:a", "cpu", None, 9)
    monkeypatch.setattr(admission, "_MAX_FILE", 10)
    assert PeakRecords(path).peak("sha256:a", "cpu", None) is None


def test_good_rows_beside_garbage_are_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"format": 1, "peaks": [None, ROW]}))
    records = PeakRecords(path)
    records.record("sha256:b", "cpu", None, 9)
    assert [PeakRecords(path).peak(f"sha256:{name}", "cpu", None) for name in "ab"] == [5, 9]


def test_two_writers_keep_each_others_records(path: Path) -> None:
    ours, theirs = PeakRecords(path), PeakRecords(path)
    ours.record("sha256:a", "cpu", None, 5)
    theirs.record("sha256:b", "cpu", None, 6)
    theirs.record("sha256:a", "cpu", None, 4)  # lower than what the file has
    ours.record("sha256:c", "cpu", None, 7)
    assert [ours.peak(f"sha256:{name}", "cpu", None) for name in "abc"] == [5, 6, 7]
    assert [PeakRecords(path).peak(f"sha256:{name}", "cpu", None) for name in "abc"] == [5, 6, 7]
    assert sorted(file.name for file in path.parent.iterdir()) == ["peaks.json", "peaks.json.lock"]


def test_many_processes_lose_nothing(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from src.inference.admission import PeakRecords\n"
        "records = PeakRecords(Path(sys.argv[1]))\n"
        "for number in range(15): records.record(f'{sys.argv[2]}-{number}', 'cpu', None, 100 + number)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), str(writer)]) for writer in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    records = PeakRecords(path)
    for writer in range(4):
        for number in range(15):
            assert records.peak(f"{writer}-{number}", "cpu", None) == 100 + number


def test_the_longest_unseen_records_go_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_MAX_RECORDS", 3)
    records = PeakRecords(path)
    for name in ("a", "b", "c", "d"):
        records.record(name, "cpu", None, 5)
    records.record("b", "cpu", None, 6)
    records.record("e", "cpu", None, 5)
    assert [PeakRecords(path).peak(name, "cpu", None) for name in "abcde"] == [None, 6, None, 5, 5]


def test_a_file_that_cannot_be_written_leaves_the_records_in_memory(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir(parents=True)  # a folder stands in its place
    records = PeakRecords(path)
    with caplog.at_level(logging.WARNING):
        records.record("sha256:a", "cpu", None, 5)
    assert "cannot be saved" in caplog.text
    assert records.peak("sha256:a", "cpu", None) == 5
    assert [file.name for file in path.parent.iterdir() if "." in file.suffix and file.is_file()] == ["peaks.json.lock"]


def test_a_lock_that_somebody_holds_is_not_waited_for_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "_LOCK_TIMEOUT", 0.05)
    path.parent.mkdir()
    records = PeakRecords(path)
    with file_locked(path.parent / "peaks.json.lock", timeout=1), caplog.at_level(logging.WARNING):
        records.record("sha256:a", "cpu", None, 5)
    assert "held" in caplog.text
    assert records.peak("sha256:a", "cpu", None) == 5
    records.record("sha256:b", "cpu", None, 6)
    known: Any = json.loads(path.read_text())["peaks"]
    assert [row["digest"] for row in known] == ["sha256:a", "sha256:b"]
