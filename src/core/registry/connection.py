"""RegistryConnection: opens MLflow off the request path, guards the registry file, and says whether it answers."""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from src.core.errors import PlatformError, RegistryUnavailableError
from src.core.registry.address import sqlite_path, without_credentials
from src.core.registry.file import RegistryFile
from src.core.registry.snapshot import RegistrySnapshot
from src.core.registry.sqlite_guard import Fingerprint, lock_patience
from src.core.threads import in_background

if TYPE_CHECKING:
    from src.core.registry.backend import MlflowBackend

logger = logging.getLogger(__name__)

T = TypeVar("T")
State = Literal["starting", "ready", "degraded"]

_READ_PATIENCE = 1.0  # seconds that a read waits for a locked file
_START_PATIENCE = 120.0  # for a caller who has nothing to fall back on: a cold disk takes its time to import MLflow
_WRITE_PATIENCE = 30.0  # for the writers before; each of them is bounded by itself
_LONGEST_PAUSE = 5.0
_QUICK = 0.5


class RegistryConnection:
    """The way to one registry. Every method may be called from any thread."""

    def __init__(self, uri: str, snapshot: RegistrySnapshot, *, request_timeout: float) -> None:
        path = sqlite_path(uri)
        self.file = RegistryFile(path, snapshot) if path else None
        self.state: State = "starting"
        self.reason: str | None = None
        self.created = False
        self._uri = uri
        self._snapshot = snapshot
        self._timeout = request_timeout
        self._backend: MlflowBackend | None = None
        self._sound: Fingerprint | None = None
        self._starting = threading.Lock()
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        self._launched = threading.Event()
        self._started = threading.Event()
        self._failures = 0
        self._quiet_until = 0.0
        self._barred_until = 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether it failed so lately that asking again in the background makes no sense."""
        return time.monotonic() < self._quiet_until

    def start(self) -> None:
        """Opens the registry; a failure makes the state `degraded` and is tried again when next asked."""
        self._launched.set()
        with self._starting:
            if self.state == "ready":
                return
            self._snapshot.load()
            try:
                self._asked(lambda backend: backend.ping(), _READ_PATIENCE)
            except PlatformError:
                pass  # recorded as the reason
            finally:
                self._started.set()
        self._warm_up()

    def close(self) -> None:
        """Closes what is open; the next call would open it again."""
        with self._opening:
            backend, self._backend, self._sound = self._backend, None, None
        if backend is not None:
            backend.close()

    def read(self, operation: Callable[["MlflowBackend"], T], *, has_fallback: bool = False) -> T:
        """Asks the registry; raises `RegistryUnavailableError` at once where it failed a moment ago."""
        self._await_start(has_fallback)
        if time.monotonic() < self._barred_until:
            raise self._unavailable()
        return self._asked(operation, _READ_PATIENCE)

    def write(self, operation: Callable[["MlflowBackend"], T]) -> T:
        """Changes the registry: one writer at a time, among the processes on a registry file too."""
        self._await_start(has_fallback=False)
        with self._sole_writer():
            return self._asked(operation, self._timeout, confirm=True)

    def health(self) -> dict[str, Any]:
        """Asks the registry for next to nothing; returns whether and how fast it answered."""
        started = time.perf_counter()
        reachable = self._started.is_set() and self._answers()
        latency = round((time.perf_counter() - started) * 1000, 2) if reachable else None
        return {
            "reachable": reachable,
            "latency_ms": latency,
            "state": self.state,
            "reason": self.reason,
            "uri": without_credentials(self._uri),
        }

    # ------------------------------------------------------------------ asking

    def _asked(self, operation: Callable[["MlflowBackend"], T], patience: float, *, confirm: bool = False) -> T:
        asked_at = time.monotonic()
        try:
            backend, file = self._open(patience)
            with lock_patience(patience):
                value = operation(backend)
            if confirm and self.file is not None:
                self.file.confirm_same(file)
        except RegistryUnavailableError as exc:
            if not exc.details.get("unasked"):
                self._failed(exc, cost=time.monotonic() - asked_at)
            raise
        except PlatformError:
            self._succeeded()
            raise
        self._succeeded()
        return value

    def _answers(self) -> bool:
        try:
            self.read(lambda backend: backend.ping())
        except PlatformError:
            return False
        return True

    def _await_start(self, has_fallback: bool) -> None:
        if self._started.is_set():
            return
        if not self._launched.is_set():
            self._launched.set()
            in_background(self.start, lambda: None)
        if not self._started.wait(self._timeout if has_fallback else max(self._timeout, _START_PATIENCE)):
            raise self._being_opened()

    @contextmanager
    def _sole_writer(self) -> Iterator[None]:
        failures, patience = self._failures, max(self._timeout, _WRITE_PATIENCE)
        if not self._writing.acquire(timeout=patience):
            raise RegistryUnavailableError("The model registry is busy with other changes; try again")
        try:
            if self._failures > failures and time.monotonic() < self._barred_until:
                raise self._unavailable()  # as it has just told the one before
            with self.file.sole_writer(patience) if self.file else nullcontext():
                yield
        finally:
            self._writing.release()

    # ------------------------------------------------------------------ opening

    def _open(self, patience: float) -> tuple["MlflowBackend", Fingerprint | None]:
        """Returns the backend, open on the file that is there now, and that file's fingerprint."""
        seen = self.file.guard.fingerprint() if self.file else None
        if self._backend is not None and seen == self._sound and (seen is not None or self.file is None):
            return self._backend, seen
        failures = self._failures
        if not self._opening.acquire(timeout=patience):
            raise self._being_opened()
        try:
            if self._failures > failures:  # whoever held the lock has just tried
                raise self._unavailable()
            return self._reopen(patience)
        finally:
            self._opening.release()

    def _reopen(self, patience: float) -> tuple["MlflowBackend", Fingerprint | None]:
        try:
            return self._open_on_sound_file(patience)
        except PlatformError:
            raise
        except Exception as exc:
            raise RegistryUnavailableError(f"The model registry could not be opened: {exc}") from exc

    def _open_on_sound_file(self, patience: float) -> tuple["MlflowBackend", Fingerprint | None]:
        backend, sound = self._backend, self._sound
        self._sound = None
        if self.file is None:
            self._backend = backend or self._connect()
            return self._backend, None
        self.file.check(patience)
        seen = self.file.guard.fingerprint()
        if backend is None or seen is None or sound is None or seen.inode != sound.inode:
            backend = self._connect()
            seen = self.file.guard.fingerprint()
        self._backend, self._sound = backend, seen
        return backend, seen

    def _connect(self) -> "MlflowBackend":
        open_backend = _import_mlflow()
        if self.file is not None:
            self.created = self.file.create_where_new(self._timeout) or self.created
            self.file.drop_connections()
        backend = open_backend(self._uri, timeout=self._timeout)
        self._snapshot.update(names=backend.names())
        return backend

    def _warm_up(self) -> None:
        """Imports MLflow even where the registry cannot be used now, so that its return is noticed at once."""
        try:
            _import_mlflow()
        except Exception:
            logger.exception("MLflow cannot be imported")

    # ------------------------------------------------------------------ state

    def _unavailable(self) -> RegistryUnavailableError:
        return RegistryUnavailableError(self.reason or "The model registry does not answer", details={"unasked": True})

    def _being_opened(self) -> RegistryUnavailableError:
        address = without_credentials(self._uri)
        return RegistryUnavailableError(f"The model registry at {address} is being opened", details={"unasked": True})

    def _succeeded(self) -> None:
        if self.state == "degraded":
            logger.info("the model registry at %s answers again", without_credentials(self._uri))
        self.state, self.reason, self._failures = "ready", None, 0
        self._quiet_until = self._barred_until = 0.0

    def _failed(self, error: RegistryUnavailableError, cost: float) -> None:
        """Records a failure. One that cost time keeps others from paying it again for as long as it took."""
        if self.state != "degraded" or self.reason != error.message:
            logger.warning("the model registry is degraded: %s", error.message)
        self._failures += 1
        self.state, self.reason = "degraded", error.message
        self._quiet_until = time.monotonic() + min(2.0 ** (self._failures - 1), _LONGEST_PAUSE)
        self._barred_until = time.monotonic() + min(cost, _LONGEST_PAUSE) if cost > _QUICK else 0.0


def _import_mlflow() -> "type[MlflowBackend]":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    warnings.filterwarnings("ignore", module=r"mlflow\b")
    try:
        from src.core.registry.backend import MlflowBackend
    except ImportError as exc:
        raise RegistryUnavailableError(f"MLflow cannot be imported: {exc}") from exc
    return MlflowBackend
