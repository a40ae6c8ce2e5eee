"""SpeedWindow: how fast work goes, from its last ten seconds."""

from collections import deque

SPAN = 10.0
_SPACING = 0.2


class SpeedWindow:
    """Samples of (seconds, bytes done). The first one only says where the work began."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Takes a sample; those that come too close upon another are not kept."""
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()  # it went back: something begins again
        if not samples or now - samples[-1][0] >= _SPACING:
            samples.append((now, done))
        self._drop_old(now)

    def bytes_per_second(self, now: float, done: int) -> float:
        """Returns the speed over the window up to now, at which `done` bytes are there."""
        self._drop_old(now)
        if not self._samples:
            return 0.0
        since, before = self._samples[0]
        return max(0.0, (done - before) / (now - since)) if now - since >= _SPACING else 0.0

    def _drop_old(self, now: float) -> None:
        # The newest sample before the window stays, as the place to measure from.
        while len(self._samples) > 1 and self._samples[1][0] <= now - SPAN:
            self._samples.popleft()
