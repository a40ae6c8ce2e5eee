"""Supervision: how long to wait after a death, and when to stop trying."""

import pytest

from src.core.settings_sections import WorkerSettings
from src.inference.workers.supervision import WINDOW_SECONDS, Supervisor


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(clock: Clock) -> Supervisor:
    return Supervisor(WorkerSettings(max_deaths=3, quarantine=60), clock)


def test_each_death_doubles_the_wait(supervisor: Supervisor) -> None:
    first, second = supervisor.died("a", "x"), supervisor.died("a", "x")
    assert first is not None
    assert second == 2 * first


def test_one_death_too_many_is_a_quarantine(supervisor: Supervisor, clock: Clock) -> None:
    assert [supervisor.died("a", reason) is None for reason in ("x", "y", "z")] == [False, False, True]
    clock.now += 20
    error = supervisor.quarantine("a")
    assert error is not None
    assert "the last time: z" in error.message
    assert (error.retry_after, error.retryable) == (40, True)


def test_deaths_long_ago_do_not_count(supervisor: Supervisor, clock: Clock) -> None:
    for _ in range(10):
        assert supervisor.died("a", "x") is not None
        clock.now += WINDOW_SECONDS / 2 + 1


def test_models_are_counted_apart(supervisor: Supervisor) -> None:
    assert all(supervisor.died(key, "x") is not None for key in ("a", "b", "c", "a", "b", "c"))


def test_after_the_quarantine_there_is_one_more_try(supervisor: Supervisor, clock: Clock) -> None:
    for _ in range(3):
        supervisor.died("a", "x")
    clock.now += 61
    assert supervisor.quarantine("a") is None
    assert supervisor.died("a", "x") is None
    assert supervisor.quarantine("a") is not None


def test_a_better_reason_takes_the_place_of_the_first(supervisor: Supervisor) -> None:
    supervisor.died("a", "its process ended")
    supervisor.explain("a", "out of memory")
    supervisor.explain("b", "never died")
    assert (supervisor.reason("a"), supervisor.reason("b")) == ("out of memory", None)


def test_forgiving_forgets_everything(supervisor: Supervisor) -> None:
    for _ in range(3):
        supervisor.died("a", "x")
    supervisor.forgive()
    assert supervisor.quarantine("a") is None
    assert supervisor.reason("a") is None
