"""RegistrySnapshot: what the registry said last, on disk, so that a restart without MLflow serves the same.

One JSON file, shared by every process on the data folder: each writer merges under a lock file and
replaces the whole, so that nobody's entries get lost. Registries are told apart by a key, so that a
change of address does not serve the models of another registry.
"""

import json
import logging
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.core.file_lock import file_locked
from src.core.registry.sqlite_guard import Fingerprint
from src.core.registry.versions import RegisteredModel
from src.core.stores.disk import write_durably

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_MODELS = 1000
MAX_VERSIONS = 100
_LOCK_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """A model as the registry had it at `read_at` (seconds since 1970).

    `fingerprint` is that of the registry file before it was read: as long as it holds, so does the entry.
    """

    model: RegisteredModel
    fingerprint: Fingerprint | None
    read_at: float


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the file holds about one registry: entries by stored name, and every documented name seen."""

    entries: Mapping[str, SnapshotEntry]
    names: tuple[str, ...] = ()


class RegistrySnapshot:
    """The snapshot file's part for one registry. Safe to use from any thread."""

    def __init__(self, path: Path, registry: str) -> None:
        self.path = path
        self._registry = registry
        self._lock = threading.Lock()
        self._contents = _Contents({})
        self._known = False
        self._loaded = False

    @property
    def known(self) -> bool:
        """Whether the registry was there before: its file may then no longer be created."""
        return self._known

    @property
    def holds_models(self) -> bool:
        """Whether the registry had models."""
        return bool(self._contents.entries or self._contents.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Every documented name seen."""
        contents = self._contents
        return tuple(sorted({*contents.names, *(entry.model.name for entry in contents.entries.values())}))

    def entry(self, stored: str) -> SnapshotEntry | None:
        """Returns what is known about a stored name."""
        return self._contents.entries.get(stored)

    def entries(self) -> list[SnapshotEntry]:
        """Returns every entry, the latest read first."""
        return sorted(self._contents.entries.values(), key=lambda entry: entry.read_at, reverse=True)

    def differs(self, entry: SnapshotEntry) -> bool:
        """Whether the file says something else about a model (when it was read does not count)."""
        known = self.entry(entry.model.stored)
        return known is None or known.model != _trimmed(entry).model

    def load(self, *, again: bool = False) -> None:
        """Reads the file, once unless `again`; a damaged one counts as proof that there was a registry."""
        with self._lock:
            if again or not self._loaded:
                self._adopt(self._read())
                self._loaded = True

    def update(
        self,
        *,
        entries: Iterable[SnapshotEntry] = (),
        removed: Iterable[str] = (),
        names: Iterable[str] | None = None,
    ) -> None:
        """Merges changes into the file. A disk that refuses is logged: serving goes on without it."""
        with self._lock:
            try:
                self._merge(list(entries), set(removed), names)
            except (OSError, TimeoutError) as exc:
                logger.warning("the registry's snapshot %s was not written: %s", self.path, exc)

    def _merge(self, entries: list[SnapshotEntry], removed: set[str], names: Iterable[str] | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with file_locked(self.path.with_name(self.path.name + ".lock"), timeout=_LOCK_TIMEOUT):
            document = self._read()
            base = self._part(document) or self._contents
            merged = {stored: entry for stored, entry in base.entries.items() if stored not in removed}
            for entry in map(_trimmed, entries):
                present = merged.get(entry.model.stored)
                if present is None or present.read_at <= entry.read_at:
                    merged[entry.model.stored] = entry
            contents = _Contents(_newest(merged), base.names if names is None else tuple(sorted(set(names))))
            self._write(document, contents)
        self._contents, self._known = contents, True

    def _adopt(self, document: dict[str, Any] | None) -> None:
        contents = self._part(document)
        if contents is not None:
            self._contents = contents
        damaged = self.path.exists() if document is None else self._registry in document.get("registries", {})
        self._known = self._known or contents is not None or damaged

    def _part(self, document: dict[str, Any] | None) -> _Contents | None:
        try:
            part = (document or {})["registries"][self._registry]
            entries = {stored: _entry(values) for stored, values in part["models"].items()}
            return _Contents(entries, tuple(part["names"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def _read(self) -> dict[str, Any] | None:
        try:
            document = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            logger.warning("the registry's snapshot %s cannot be read: %s", self.path, exc)
            return None
        return document if isinstance(document, dict) and document.get("format") == FORMAT else None

    def _write(self, document: dict[str, Any] | None, contents: _Contents) -> None:
        part = {
            "names": contents.names,
            "models": {stored: _plain(entry) for stored, entry in contents.entries.items()},
        }
        registries = {**(document or {}).get("registries", {}), self._registry: part}
        data = json.dumps({"format": FORMAT, "registries": registries}, ensure_ascii=False, indent=1).encode()
        write_durably(self.path, data, self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}.tmp"))


def _entry(values: Mapping[str, Any]) -> SnapshotEntry:
    fingerprint = Fingerprint.from_json(values["fingerprint"])
    return SnapshotEntry(RegisteredModel.from_json(values["model"]), fingerprint, float(values["read_at"]))


def _plain(entry: SnapshotEntry) -> dict[str, Any]:
    return {
        "read_at": entry.read_at,
        "fingerprint": entry.fingerprint.to_json() if entry.fingerprint else None,
        "model": entry.model.to_json(),
    }


def _trimmed(entry: SnapshotEntry) -> SnapshotEntry:
    model = entry.model
    if len(model.versions) <= MAX_VERSIONS:
        return entry
    kept = [v for index, v in enumerate(model.versions) if index < MAX_VERSIONS or v.aliases]
    return replace(entry, model=replace(model, versions=tuple(kept)))


def _newest(entries: dict[str, SnapshotEntry]) -> dict[str, SnapshotEntry]:
    latest = sorted(entries.items(), key=lambda item: item[1].read_at, reverse=True)[:MAX_MODELS]
    return dict(sorted(latest))
