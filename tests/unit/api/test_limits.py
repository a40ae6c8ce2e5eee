"""Limits per caller: an exact burst, an exact rate, requests in flight, bounded memory."""

from typing import Any

import pytest

from src.api.forwarding import household
from src.api.limits import MOST_CALLERS, CallerLimits
from src.core.config import load_settings
from src.core.errors import ConfigurationError, RateLimitedError
from src.core.settings_sections import LimitSettings

CLIENT, OTHER = "203.0.113.7", "203.0.113.8"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Limits:
    """Limits with a clock of the test's own."""

    def __init__(self, *, has_keys: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        self.counted = CallerLimits(LimitSettings(**settings), has_keys=has_keys, clock=self.clock)

    def enter(self, address: str | None = CLIENT, **headers: str) -> str:
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        client = (address, 1) if address else None
        return self.counted.enter({"client": client, "headers": lines}, dict(lines))

    def passes(self, address: str | None = CLIENT, **headers: str) -> bool:
        """Whether one more request of a caller may be served; it stays in flight."""
        try:
            self.enter(address, **headers)
        except RateLimitedError:
            return False
        return True

    def served(self, most: int) -> int:
        return sum(self.passes() for _ in range(most))


@pytest.mark.parametrize("burst", [1, 5, 40])
def test_so_many_may_come_at_once_and_no_more(burst: int) -> None:
    assert Limits(requests_per_minute=60, burst=burst).served(100) == burst


@pytest.mark.parametrize(("rate", "burst"), [(60, 1), (90, 10), (7, 3)])
def test_over_ten_minutes_the_rate_and_one_burst_are_served(rate: int, burst: int) -> None:
    limits, served = Limits(requests_per_minute=rate, burst=burst), 0
    for _ in range(6000):
        served += limits.served(3)
        limits.clock.now += 0.1
    assert served in (10 * rate + burst - 1, 10 * rate + burst)


@pytest.mark.parametrize("rate", [1, 7, 60, 600, 100_000])
def test_who_waits_as_told_is_served_and_who_waits_less_is_not(rate: int) -> None:
    limits = Limits(requests_per_minute=rate, burst=3)
    assert limits.served(3) == 3
    with pytest.raises(RateLimitedError) as told:
        limits.enter()
    wait = 60 / rate
    assert told.value.retry_after == told.value.details["retry_after"] == max(1, -(-60 // rate))
    limits.clock.now += 0.99 * wait
    assert not limits.passes()
    limits.clock.now += 0.01 * wait
    assert limits.passes()
    limits.clock.now += told.value.retry_after
    assert limits.passes()


def test_a_refused_request_costs_nothing() -> None:
    limits = Limits(requests_per_minute=60, burst=2)
    assert limits.served(1000) == 2
    limits.clock.now += 1
    assert limits.passes()


def test_a_refusal_says_what_the_limit_is() -> None:
    limits = Limits(requests_per_minute=6, burst=1)
    limits.enter()
    with pytest.raises(RateLimitedError, match="ask again in 10 s") as told:
        limits.enter()
    assert told.value.details == {
        "limit": 6, "setting": "limits.requests_per_minute", "window_seconds": 60, "burst": 1, "retry_after": 10,
    }  # fmt: skip
    assert told.value.retryable


def test_callers_do_not_disturb_each_other() -> None:
    limits = Limits(requests_per_minute=60, burst=2, concurrent=2)
    assert limits.served(10) == 2
    assert limits.passes(OTHER)


def test_so_many_are_in_flight_and_another_one_when_one_has_left() -> None:
    limits = Limits(concurrent=2)
    first, _ = limits.enter(), limits.enter()
    with pytest.raises(RateLimitedError, match=r"limits\.concurrent") as told:
        limits.enter()
    assert (told.value.retry_after, told.value.details["limit"]) == (1.0, 2)
    limits.counted.leave(first)
    assert limits.served(10) == 1


def test_one_too_many_in_flight_costs_nothing_of_the_rate() -> None:
    limits = Limits(requests_per_minute=60, burst=3, concurrent=1)
    caller = limits.enter()
    assert limits.served(10) == 0
    limits.counted.leave(caller)
    assert limits.passes()


def test_one_refused_for_its_rate_is_not_in_flight() -> None:
    limits = Limits(requests_per_minute=60, burst=1, concurrent=1)
    caller = limits.enter()
    limits.counted.leave(caller)
    assert not limits.passes()
    assert limits.counted._in_flight == {}


def test_keys_that_are_checked_name_the_caller_wherever_it_is() -> None:
    limits = Limits(requests_per_minute=60, burst=1, has_keys=True)
    assert limits.passes(CLIENT, x_api_key="one")
    assert not limits.passes(OTHER, authorization="Bearer one")
    assert limits.passes(CLIENT, x_api_key="two")
    assert all("one" not in name for name in limits.counted._full_at)


def test_keys_that_nobody_checks_name_nobody() -> None:
    limits = Limits(requests_per_minute=60, burst=1)
    assert limits.passes(CLIENT, x_api_key="one")
    assert not limits.passes(CLIENT, x_api_key="two")


def test_a_forwarded_address_counts_behind_a_believed_proxy_only() -> None:
    limits = Limits(requests_per_minute=60, burst=1, trusted_proxies="10.0.0.0/8")
    assert limits.passes("10.0.0.5", x_forwarded_for=CLIENT)
    assert limits.passes("10.0.0.5", x_forwarded_for=OTHER)
    assert not limits.passes("10.1.2.3", x_forwarded_for=CLIENT)
    assert limits.passes("192.0.2.1", x_forwarded_for="1.1.1.1")
    assert not limits.passes("192.0.2.1", x_forwarded_for="1.1.1.2")


def test_callers_on_a_unix_socket_are_one() -> None:
    limits = Limits(requests_per_minute=60, burst=1)
    assert limits.passes(None)
    assert not limits.passes(None)


def test_a_flood_of_addresses_is_not_remembered() -> None:
    limits = Limits(requests_per_minute=60, burst=1, concurrent=5)
    for number in range(3 * MOST_CALLERS):
        limits.counted.leave(limits.enter(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
    assert len(limits.counted._full_at) == MOST_CALLERS
    assert limits.counted._in_flight == {}
    assert household.cache_info().currsize <= 4096


def test_a_caller_that_goes_on_asking_is_not_forgotten_in_a_flood() -> None:
    limits = Limits(requests_per_minute=1, burst=3)
    served = {}
    for number in range(24_000):
        limits.enter(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number in (0, 8000, 16_000, 23_999):
            served[number] = limits.passes()
    assert served == {0: True, 8000: True, 16_000: True, 23_999: False}


@pytest.mark.parametrize(("limits", "on"), [({}, False), ({"concurrent": 1}, True), ({"requests_per_minute": 1}, True)])
def test_without_limits_there_is_nothing_to_call(limits: dict[str, int], on: bool) -> None:
    assert (CallerLimits.of(load_settings(limits=limits)) is not None) is on


def test_a_proxy_that_is_no_address_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"limits\.trusted_proxies.*nginx"):
        load_settings(limits={"trusted_proxies": "nginx"})
