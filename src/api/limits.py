"""How much one caller may ask: requests a minute, and requests in flight. Kept in this process.

The rate is a token bucket, written as the time at which the caller's bucket is full again (the generic cell rate
algorithm of ATM's traffic management): one number per caller, and whoever has been quiet long enough is forgotten
without loss.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from starlette.types import Scope

from src.api.auth import given_key
from src.api.forwarding import Proxies, household
from src.core import metrics
from src.core.config import Settings
from src.core.errors import RateLimitedError
from src.core.settings_sections import LimitSettings

MOST_CALLERS = 10_000
"""Callers that are remembered; of more, those quiet the longest are forgotten."""
_MINUTE = 60.0
_ROUNDING = 1e-6


class CallerLimits:
    """Counts the requests of each caller: `enter` before one, `leave` after it. One event loop uses it.

    A caller is an API key where the service checks keys, else an address. `clock` gives seconds.
    """

    def __init__(self, settings: LimitSettings, *, has_keys: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._has_keys = has_keys
        self._proxies = Proxies(settings.trusted_proxies)
        self._clock = clock
        self._interval = _MINUTE / settings.requests_per_minute if settings.requests_per_minute else 0.0
        self._slack = (settings.burst - 1) * self._interval
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._in_flight: dict[str, int] = {}

    @classmethod
    def of(cls, settings: Settings) -> "CallerLimits | None":
        """Returns the limits that the settings ask for; None for none."""
        limits = settings.limits
        wanted = limits.requests_per_minute or limits.concurrent
        return cls(limits, has_keys=bool(settings.api_keys)) if wanted else None

    def enter(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Returns the caller of a request that may be served; raises `RateLimitedError` for one too many."""
        caller = self._caller(scope, headers)
        # A request that is one too many at a time costs nothing of the rate.
        if self._settings.concurrent:
            self._check_concurrent(caller)
        if self._interval:
            self._take(caller)
        if self._settings.concurrent:
            self._in_flight[caller] = self._in_flight.get(caller, 0) + 1
        return caller

    def leave(self, caller: str) -> None:
        """Ends a request that was entered."""
        left = self._in_flight.get(caller, 0) - 1
        if left > 0:
            self._in_flight[caller] = left
        else:
            self._in_flight.pop(caller, None)

    def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        # A key that nobody checks names nobody: whoever wants more would send another.
        key = given_key(headers) if self._has_keys else None
        if key is not None:
            return _of_key(key)
        client = scope.get("client")
        if client is None:
            return "local"  # a Unix socket
        return household(self._proxies.client(client[0], scope["headers"]))

    def _take(self, caller: str) -> None:
        now = self._clock()
        full_at = max(self._full_at.get(caller, 0.0), now)
        wait = full_at - now - self._slack
        if wait > _ROUNDING:
            raise self._too_fast(wait)
        self._full_at[caller] = full_at + self._interval
        self._full_at.move_to_end(caller)
        if len(self._full_at) > MOST_CALLERS:
            self._full_at.popitem(last=False)

    def _check_concurrent(self, caller: str) -> None:
        most = self._settings.concurrent
        if self._in_flight.get(caller, 0) >= most:
            metrics.limited("concurrent").inc()
            raise RateLimitedError(
                f"{most} requests of this caller are in flight, as many as one may have (limits.concurrent): "
                "ask again when one of them is answered",
                details={"limit": most, "setting": "limits.concurrent", "retry_after": 1},
            )

    def _too_fast(self, wait: float) -> RateLimitedError:
        metrics.limited("rate").inc()
        rate, burst, seconds = self._settings.requests_per_minute, self._settings.burst, math.ceil(wait)
        return RateLimitedError(
            f"this caller asks too often: {burst} requests may come at once, and {rate} a minute "
            f"(limits.requests_per_minute): ask again in {seconds} s",
            details={
                "limit": rate,
                "setting": "limits.requests_per_minute",
                "window_seconds": int(_MINUTE),
                "burst": burst,
                "retry_after": seconds,
            },
            retry_after=seconds,
        )


@lru_cache(maxsize=4096)
def _of_key(key: bytes) -> str:
    return "key:" + hashlib.sha256(key).hexdigest()
