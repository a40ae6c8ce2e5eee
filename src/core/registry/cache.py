"""ResolutionCache: resolved references in memory, and the rules for how long they may be believed."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from src.core.errors import ModelNotFoundError
from src.core.registry.names import parse_reference, stored_candidates
from src.core.registry.resolution import choose
from src.core.registry.snapshot import SnapshotEntry
from src.core.registry.sqlite_guard import Fingerprint
from src.core.registry.versions import Resolution

_MAX_REFERENCES = 10_000
_MISS_TTL = 1.0


@dataclass(slots=True, eq=False)
class CachedModel:
    """A model as it was read. `warning` is set where it stands in for a registry that did not answer."""

    entry: SnapshotEntry
    verified_at: float
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class _Miss:
    error: ModelNotFoundError
    fingerprint: Fingerprint | None
    at: float


class ResolutionCache:
    """Models by stored name, resolutions by reference. Reading takes no lock.

    `look` gives the registry file's present fingerprint, at most 0.2 s old; None for a registry that is
    not a file: its models count as current for `ttl` seconds.
    """

    def __init__(self, ttl: float, look: Callable[[], Fingerprint | None] | None) -> None:
        self._ttl = ttl
        self._longest = max(60.0, 10 * ttl)
        self._look = look
        self._lock = threading.Lock()
        self._models: dict[str, CachedModel] = {}
        self._resolved: dict[str, tuple[CachedModel, Resolution]] = {}
        self._missed: dict[str, _Miss] = {}

    def get(self, reference: str, *, degraded: bool) -> Resolution | None:
        """Returns a resolution that may still be served; None where it has to be resolved.

        A stand-in is served as long as the registry is `degraded`.
        """
        found = self._resolved.get(reference) or self._derive(reference)
        if found is None:
            return None
        model, resolution = found
        if model.warning is not None:
            return resolution if degraded else None
        if self._is_current(model):
            return resolution
        return resolution if time.monotonic() - model.verified_at <= self._longest else None

    def current(self, reference: str) -> Resolution | None:
        """Returns a resolution that is as good as asking the registry."""
        found = self._resolved.get(reference) or self._derive(reference)
        return found[1] if found and self._is_current(found[0]) else None

    def is_stale(self, reference: str) -> bool:
        """Whether a resolution is there that should be refreshed."""
        found = self._resolved.get(reference)
        return found is not None and not self._is_current(found[0])

    def model(self, stored: str) -> SnapshotEntry | None:
        """Returns a model as it was last read."""
        cached = self._models.get(stored)
        return cached.entry if cached else None

    def put(self, entry: SnapshotEntry, *, warning: str | None = None) -> None:
        """Takes in a model as it was just read, or one that stands in, with a warning."""
        with self._lock:
            self._forget(entry.model.stored)
            self._models[entry.model.stored] = CachedModel(entry, time.monotonic(), warning)
            self._missed.clear()

    def drop(self, stored: str) -> None:
        """Forgets a model."""
        with self._lock:
            self._forget(stored)

    def missed(self, reference: str) -> ModelNotFoundError | None:
        """Returns why a reference was not found a moment ago (1 s at most)."""
        miss = self._missed.get(reference)
        if miss is None or time.monotonic() - miss.at > _MISS_TTL:
            return None
        if self._look is not None and self._look() != miss.fingerprint:
            return None
        return ModelNotFoundError(miss.error.message, details=miss.error.details)

    def put_missed(self, reference: str, error: ModelNotFoundError, fingerprint: Fingerprint | None) -> None:
        """Remembers that a reference was not found."""
        with self._lock:
            if len(self._missed) >= _MAX_REFERENCES:
                self._missed.clear()
            self._missed[reference] = _Miss(error, fingerprint, time.monotonic())

    def _derive(self, reference: str) -> tuple[CachedModel, Resolution] | None:
        try:
            parsed = parse_reference(reference)
            model = next((m for s in stored_candidates(parsed.name) if (m := self._models.get(s))), None)
            if model is None:
                return None
            resolution = choose(model.entry.model, parsed, reference)
        except (ValueError, ModelNotFoundError):
            return None
        if model.warning is not None:
            resolution = replace(resolution, warnings=(*resolution.warnings, model.warning))
        with self._lock:
            if self._models.get(model.entry.model.stored) is model:
                if len(self._resolved) >= _MAX_REFERENCES:
                    self._resolved.clear()
                self._resolved[reference] = model, resolution
        return model, resolution

    def _is_current(self, model: CachedModel) -> bool:
        if model.warning is not None:
            return False
        if self._look is None:
            return time.monotonic() - model.verified_at < self._ttl
        if model.entry.fingerprint is None or self._look() != model.entry.fingerprint:
            return False
        model.verified_at = time.monotonic()
        return True

    def _forget(self, stored: str) -> None:
        old = self._models.pop(stored, None)
        if old is not None:
            for reference in [r for r, (model, _) in self._resolved.items() if model is old]:
                del self._resolved[reference]
