"""Supervision: how often a model's worker died, how long to wait, and when to stop trying."""

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from src.core.errors import ModelQuarantinedError
from src.core.settings_sections import WorkerSettings

FIRST_BACKOFF = 0.1
WINDOW_SECONDS = 300.0


@dataclass(slots=True)
class Record:
    """The deaths of one model's workers, as times, and why the last one died."""

    deaths: deque[float] = field(default_factory=deque)
    reason: str = ""
    quarantined_until: float | None = None


class Supervisor:
    """Decides after a death: start again after a while, or quarantine. Times are monotonic seconds."""

    def __init__(self, settings: WorkerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._records: dict[Hashable, Record] = {}

    def died(self, key: Hashable, reason: str) -> float | None:
        """Notes a death; returns the seconds to wait before the next start, None when it is quarantined."""
        record = self._records.setdefault(key, Record())
        now = self._clock()
        record.reason = reason
        record.deaths.append(now)
        while record.deaths[0] < now - WINDOW_SECONDS:
            record.deaths.popleft()
        if len(record.deaths) >= self._settings.max_deaths:
            record.quarantined_until = now + self._settings.quarantine
            return None
        return float(FIRST_BACKOFF * 2 ** (len(record.deaths) - 1))

    def explain(self, key: Hashable, reason: str) -> None:
        """Puts a better reason in the place of the one known at the moment of death."""
        if key in self._records:
            self._records[key].reason = reason

    def quarantine(self, key: Hashable) -> ModelQuarantinedError | None:
        """Returns the error that a quarantined model answers with; None when it may be tried (again)."""
        record = self._records.get(key)
        if record is None or record.quarantined_until is None:
            return None
        left = record.quarantined_until - self._clock()
        if left <= 0:
            # One more try: a death now quarantines it again at once.
            record.quarantined_until = None
            return None
        error = ModelQuarantinedError(
            f"the model's process died {len(record.deaths)} times within {WINDOW_SECONDS:g} s and is not started "
            f"again for {left:.0f} s; the last time: {record.reason}. POST /inference/cache/clear ends the quarantine",
            details={"deaths": len(record.deaths), "reason": record.reason, "seconds_left": round(left, 1)},
        )
        error.retry_after = left
        return error

    def reason(self, key: Hashable) -> str | None:
        """Returns why the last worker died; None where none did."""
        record = self._records.get(key)
        return record.reason if record else None

    def forgive(self, key: Hashable | None = None) -> None:
        """Forgets the deaths of one model, or every death."""
        if key is None:
            self._records.clear()
        else:
            self._records.pop(key, None)
