"""MlflowRegistry: what is registered, and which version a name stands for, also while MLflow is away.

A name is resolved from memory where that is as good as asking, else by asking MLflow, else from what
was last known, with a warning. `cached` is for the hot path: it never blocks, and whoever calls it
lets `refresh` run in the background where `stale` says so. Importing this module imports no MLflow:
`start` does, and it takes seconds.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from src.core.errors import InvalidInputError, ModelNotFoundError, RegistryUnavailableError
from src.core.registry import writes
from src.core.registry.address import without_credentials
from src.core.registry.connection import RegistryConnection, State
from src.core.registry.memory import RegistryMemory
from src.core.registry.names import Reference, check_name, parse_reference
from src.core.registry.resolution import choose, no_such_version, unknown_name
from src.core.registry.snapshot import RegistrySnapshot
from src.core.registry.stages import apply, check_stage, transition
from src.core.registry.versions import RegisteredModel, RegisteredVersion, Resolution

if TYPE_CHECKING:
    from src.core.registry.backend import MlflowBackend

T = TypeVar("T")

__all__ = ["MlflowRegistry", "RegisteredVersion", "Resolution"]


class MlflowRegistry:
    """The model registry: embedded in sqlite, an MLflow server, or a database. Safe to use from any thread.

    `ttl` and `request_timeout` are in seconds; `embedded` says that the file belongs to the data folder.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        snapshot_path: Path,
        embedded: bool,
        ttl: float = 5.0,
        request_timeout: float = 10.0,
    ) -> None:
        self._snapshot = RegistrySnapshot(snapshot_path, "embedded" if embedded else without_credentials(tracking_uri))
        self._connection = RegistryConnection(tracking_uri, self._snapshot, request_timeout=request_timeout)
        self._memory = RegistryMemory(self._snapshot, self._connection.file, ttl=ttl)
        self._cache = self._memory.cache
        self._guard = threading.Lock()
        self._resolving: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    # ------------------------------------------------------------------ life

    @property
    def state(self) -> State:
        """`starting`, `ready` or `degraded`."""
        return self._connection.state

    @property
    def reason(self) -> str | None:
        """Why the state is `degraded`, in words for the operator."""
        return self._connection.reason

    @property
    def newly_created(self) -> bool:
        """Whether this object created the registry's file, in a new data folder."""
        return self._connection.created

    def start(self) -> None:
        """Opens the registry and primes the cache; blocks for seconds. A failure shows in `state`, nowhere else."""
        self._connection.start()
        self._prime()

    def health(self) -> dict[str, Any]:
        """Asks the registry whether it answers: `reachable, latency_ms, state, reason, uri`."""
        return self._connection.health()

    def close(self) -> None:
        """Brings the snapshot up to date and closes the connections; a later call opens them again."""
        if self._connection.file is not None and self.state == "ready":
            self._prime()  # so that a restart need not wait for MLflow to answer
        self._memory.save()
        self._connection.close()

    def _prime(self) -> None:
        with suppress(RegistryUnavailableError):
            self._memory.prime(lambda stored: self._connection.read(lambda backend: backend.read(stored)))

    # ------------------------------------------------------------------ resolving

    def cached(self, reference: str) -> Resolution | None:
        """Returns a resolution from memory, without blocking; None where it has to be resolved."""
        return self._cache.get(reference, degraded=self._connection.state == "degraded")

    def current(self, reference: str) -> Resolution | None:
        """Returns a resolution from memory that is as good as asking the registry; None where there is none."""
        return self._cache.current(reference)

    def stale(self, reference: str) -> bool:
        """Whether `cached` answers with something that `refresh` should read again."""
        return self._cache.is_stale(reference) and not self._connection.is_quiet

    def refresh(self, reference: str) -> Resolution | None:
        """Resolves anew, in whatever thread calls; None where that did not work."""
        with suppress(ModelNotFoundError, RegistryUnavailableError):
            return self.resolve(reference)
        return None

    def resolve(self, reference: str) -> Resolution:
        """Returns the version that `name`, `name@alias` or `name@version` stands for; may block.

        Raises `InvalidInputError`, `ModelNotFoundError`, and `RegistryUnavailableError` where the registry
        does not answer and nothing is known that would do instead.
        """
        parsed = parse_reference(reference)
        with self._lock_for(parsed.name):  # fifty cold requests, one look-up
            if (current := self._cache.current(reference)) is not None:
                return current
            if (error := self._cache.missed(reference)) is not None:
                raise error
            if self.state == "starting" and (recalled := self._memory.recall(parsed, reference)) is not None:
                return recalled
            try:
                return self._ask(parsed, reference)
            except RegistryUnavailableError as exc:
                return self._memory.stand_in(parsed, reference, exc)

    def _ask(self, parsed: Reference, reference: str) -> Resolution:
        fingerprint = self._memory.fingerprint()
        has_fallback = self._memory.last_known(parsed.name) is not None
        try:
            return choose(self._read(parsed.name, reference, has_fallback=has_fallback), parsed, reference)
        except ModelNotFoundError as exc:
            self._cache.put_missed(reference, exc, fingerprint)
            raise

    def _read(self, name: str, reference: str, *, has_fallback: bool = False) -> RegisteredModel:
        """Reads a model and remembers it; raises `ModelNotFoundError`."""
        fingerprint, changes = self._memory.fingerprint(), self._memory.changes
        model = self._connection.read(partial(writes.find, name=name), has_fallback=has_fallback)
        if model is None:
            self._memory.forget(name)
            raise unknown_name(reference, name, self._connection.read(lambda backend: backend.names()))
        self._memory.remember(model, fingerprint, read_after=changes)
        return model

    def _lock_for(self, name: str) -> threading.Lock:
        with self._guard:
            return self._resolving.setdefault(name, threading.Lock())

    # ------------------------------------------------------------------ what is registered

    def list_models(self, *, show_all: bool = False) -> list[RegisteredVersion]:
        """Returns the versions of every model, by name, the newest first; `show_all` adds archived ones."""
        models = self._connection.read(lambda backend: backend.read_all())
        names = tuple(model.name for model in models)
        if names != self._snapshot.names:
            self._snapshot.update(names=names)
        return [v for model in models for v in model.versions if show_all or v.stage != "archived"]

    def remembered(self) -> list[RegisteredVersion]:
        """Returns the versions that the snapshot holds, without asking the registry."""
        self._snapshot.load()
        return [version for entry in self._snapshot.entries() for version in entry.model.versions]

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Returns every version of a model as the registry has it now, the newest first."""
        return list(self._read(check_name(name), name).versions)

    def get_version(self, name: str, version: str) -> RegisteredVersion:
        """Returns one version as the registry has it now; raises `ModelNotFoundError`."""
        model = self._read(check_name(name), name)
        found = model.version(version)
        if found is None:
            raise no_such_version(model, f"{name}@{version}")
        return found

    # ------------------------------------------------------------------ changes

    def register(
        self,
        name: str,
        *,
        source: str,
        tags: Mapping[str, str | None],
        description: str = "",
        stage: str | None = None,
        set_priority_to_one: bool = False,
    ) -> RegisteredVersion:
        """Registers a new version, whole or not at all.

        A tag of None counts as unset; the stage may also be given as the tag `stage`.
        """
        check_name(name)
        if not source.strip():
            raise InvalidInputError(f"Model '{name}' cannot be registered without a source")
        wanted = check_stage(stage or tags.get("stage") or "none")
        work = partial(
            writes.register,
            name=name,
            source=source,
            tags={key: str(v) for key, v in tags.items() if v is not None and key not in writes.STAGE_TAGS},
            description=description,
            stage=wanted,
            first=set_priority_to_one,
        )
        model, number = self._write(work)
        return self._reread(model, number)

    def set_stage(
        self, name: str, version: str, stage: str, *, archive_existing_versions: bool = False
    ) -> RegisteredVersion:
        """Moves a version to a stage. Who enters takes the stage's alias, who leaves passes it on."""
        work = partial(
            writes.move,
            name=check_name(name),
            number=version,
            stage=check_stage(stage),
            archive_others=archive_existing_versions,
        )
        return self._reread(self._write(work), version)

    def set_tag(self, name: str, version: str, key: str, value: str | None) -> RegisteredVersion:
        """Sets a version's tag; None removes it. The tags of stages are refused."""
        work = partial(writes.tag, name=check_name(name), number=version, key=key, value=value)
        return self._reread(self._write(work), version)

    def delete_version(self, name: str, version: str, force: bool = False) -> None:
        """Deletes a version; raises `ConflictError` for one in production or staging, unless `force`."""
        work = partial(writes.delete, name=check_name(name), number=version, force=force)
        model = self._write(work)
        with suppress(ModelNotFoundError, RegistryUnavailableError):
            self._read(model.name, model.name)

    def preview(
        self, name: str, version: str, stage: str, *, archive_existing_versions: bool = False
    ) -> tuple[RegisteredModel, RegisteredModel]:
        """Returns a model as it is and as `set_stage` would leave it; changes nothing."""
        model = self._read(check_name(name), name)
        changes = transition(
            model, version, check_stage(stage), now=time.time(), archive_others=archive_existing_versions
        )
        return model, apply(model, changes)

    def restore_stages(self, model: RegisteredModel) -> None:
        """Gives the versions of a model, and its aliases, the stages that they have in `model`."""
        self._reread(self._write(partial(writes.restore, model=model)), model.versions[0].version)

    def _write(self, work: Callable[["MlflowBackend"], T]) -> T:
        try:
            return self._connection.write(work)
        finally:
            self._memory.changed()

    def _reread(self, model: RegisteredModel, number: str) -> RegisteredVersion:
        """Returns a version after a change, as the registry has it; where that fails, as it must be."""
        version = None
        with suppress(ModelNotFoundError, RegistryUnavailableError):
            version = self._read(model.name, model.name).version(number)
        if version is None:
            self._memory.remember(model, None)
            version = model.version(number)
        assert version is not None
        return version
