"""How fast a job goes, and when it will be done."""

import pytest

from src.core.jobs import context as context_module
from src.core.jobs.context import JobContext
from src.core.jobs.job import Job
from src.core.jobs.speed import SpeedWindow


class Clock:
    """Stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(context_module, "time", clock)
    return clock


def steady(window: SpeedWindow, seconds: range, bytes_per_second: int) -> None:
    for second in seconds:
        window.add(float(second), second * bytes_per_second)


def test_what_was_there_before_is_no_speed() -> None:
    window = SpeedWindow()
    window.add(0.0, 5_000)
    assert window.bytes_per_second(0.0, 5_000) == 0.0
    window.add(1.0, 5_100)
    assert window.bytes_per_second(1.0, 5_100) == 100.0


def test_only_the_last_ten_seconds_count() -> None:
    window = SpeedWindow()
    steady(window, range(100), 7)
    for second in range(100, 111):
        window.add(float(second), 99 * 7 + (second - 99) * 1000)
    assert window.bytes_per_second(110.0, 99 * 7 + 11 * 1000) == 1000.0


def test_work_that_stands_still_slows_down_to_nothing() -> None:
    window = SpeedWindow()
    steady(window, range(21), 10)
    speeds = [window.bytes_per_second(now, 200) for now in (20.0, 22.0, 25.0, 29.0, 31.0, 60.0)]
    assert speeds[0] == 10.0
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-2:] == [0.0, 0.0]


def test_work_that_begins_again_is_measured_from_there() -> None:
    window = SpeedWindow()
    steady(window, range(5), 1000)
    window.add(5.0, 0)
    window.add(6.0, 30)
    assert window.bytes_per_second(6.0, 30) == 30.0


def test_many_reports_take_little_memory() -> None:
    window = SpeedWindow()
    for step in range(100_000):
        window.add(step / 5000, step)
    assert len(window._samples) <= 60
    assert window.bytes_per_second(20.0, 100_000) == pytest.approx(5000, rel=0.05)


def test_a_job_shows_its_speed_and_when_it_will_be_done(clock: Clock) -> None:
    job = Job(kind="copy", request={})
    context = JobContext(job, lambda notes: None)
    for step in range(6):
        context.progress(1000 + step * 50, 2000)
        clock.now += 1
    seen = context.measured(job)
    assert (seen.bytes_done, seen.bytes_total, seen.progress) == (1250, 2000, 0.625)
    assert seen.bytes_per_second == pytest.approx(250 / 6)
    assert seen.eta_seconds == pytest.approx(750 / (250 / 6))


def test_without_a_total_there_is_a_speed_but_no_end(clock: Clock) -> None:
    job = Job(kind="copy", request={})
    context = JobContext(job, lambda notes: None)
    for step in range(3):
        context.progress(step * 50, 0)
        clock.now += 1
    seen = context.measured(job)
    assert seen.bytes_per_second > 0
    assert (seen.eta_seconds, seen.progress) == (None, 0.0)
