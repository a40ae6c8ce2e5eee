"""RegistryMemory: what is known about registered models without asking: the cache in memory, the snapshot on disk."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from src.core.errors import ModelNotFoundError, RegistryUnavailableError
from src.core.registry.cache import ResolutionCache
from src.core.registry.file import RegistryFile
from src.core.registry.names import Reference, stored_candidates
from src.core.registry.resolution import choose
from src.core.registry.snapshot import RegistrySnapshot, SnapshotEntry
from src.core.registry.sqlite_guard import Fingerprint
from src.core.registry.versions import RegisteredModel, Resolution

_PRIMED = 100
_SAVE_INTERVAL = 10.0  # seconds between writes that only renew fingerprints


class RegistryMemory:
    """Keeps cache and snapshot in step. Safe to use from any thread."""

    def __init__(self, snapshot: RegistrySnapshot, file: RegistryFile | None, *, ttl: float) -> None:
        self.cache = ResolutionCache(ttl, file.guard.look if file else None)
        self._snapshot = snapshot
        self._file = file
        self._lock = threading.Lock()
        self._unsaved: dict[str, SnapshotEntry] = {}
        self._saved_at = 0.0
        self._changes = 0

    def fingerprint(self) -> Fingerprint | None:
        """Returns the registry file's fingerprint now: to be taken before reading, and given to `remember`."""
        return self._file.guard.fingerprint() if self._file else None

    @property
    def changes(self) -> int:
        """How often this process has changed the registry: to be taken before reading, and given to `remember`."""
        return self._changes

    def changed(self) -> None:
        """Notes that this process has changed the registry: what was read before must not be remembered after."""
        with self._lock:
            self._changes += 1

    def remember(
        self, model: RegisteredModel, fingerprint: Fingerprint | None, *, read_after: int | None = None
    ) -> None:
        """Takes in a model as it was just read, unless a change of ours overtook the reading."""
        entry = SnapshotEntry(model, fingerprint, time.time())
        with self._lock:
            if read_after is not None and read_after != self._changes:
                return
            self.cache.put(entry)
            self._unsaved[model.stored] = entry
        if self._snapshot.differs(entry) or (
            fingerprint is not None and time.monotonic() - self._saved_at > _SAVE_INTERVAL
        ):
            self.save()

    def forget(self, name: str) -> None:
        """Drops a model that the registry no longer has."""
        for stored in stored_candidates(name):
            self.cache.drop(stored)
            with self._lock:
                self._unsaved.pop(stored, None)
            if self._snapshot.entry(stored) is not None:
                self._snapshot.update(removed=[stored])

    def save(self) -> None:
        """Writes to the snapshot what it does not have yet."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
            self._saved_at = time.monotonic()
        if unsaved:
            self._snapshot.update(entries=unsaved.values())

    def last_known(self, name: str) -> SnapshotEntry | None:
        """Returns the model of a documented name as it was last seen."""
        self._snapshot.load()
        for stored in stored_candidates(name):
            if (entry := self.cache.model(stored) or self._snapshot.entry(stored)) is not None:
                return entry
        return None

    def recall(self, reference: Reference, text: str) -> Resolution | None:
        """Resolves from the snapshot where the registry's file has not changed since; None where it has."""
        entry, present = self.last_known(reference.name), self.fingerprint()
        if entry is None or present is None or entry.fingerprint != present:
            return None
        self.cache.put(entry)
        return self.cache.current(text)

    def stand_in(self, reference: Reference, text: str, error: RegistryUnavailableError) -> Resolution:
        """Resolves from what was last known, with a warning; raises `error` where that does not suffice."""
        entry = self.last_known(reference.name)
        if entry is None:
            raise error
        read_at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(entry.read_at))
        warning = f"the model registry does not answer, this is what it said at {read_at}: {error.message}"
        try:
            resolution = choose(entry.model, reference, text)
        except ModelNotFoundError:
            raise error from None
        self.cache.put(entry, warning=warning)
        return replace(resolution, warnings=(*resolution.warnings, warning))

    def prime(self, read: Callable[[str], RegisteredModel | None]) -> None:
        """Brings the models that were in use last into memory, reading again those that may have changed."""
        for entry in self._snapshot.entries()[:_PRIMED]:
            present = self.fingerprint()
            if present is not None and entry.fingerprint == present:
                self.cache.put(entry)
            elif (model := read(entry.model.stored)) is not None:
                self.remember(model, present)
            else:
                self.forget(entry.model.name)
        self.save()
