"""RegistryFile: the rules for a registry that is a sqlite file. It is created once, and never again.

MLflow would create a missing file, and take an empty one for a registry without models. What the
snapshot knows is therefore checked before every use, and a file that fails stays untouched.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from src.core.errors import RegistryUnavailableError
from src.core.file_lock import file_locked
from src.core.registry.snapshot import RegistrySnapshot
from src.core.registry.sqlite_guard import FileProblem, Fingerprint, SqliteGuard


class RegistryFile:
    """One registry file and what may be done to it."""

    def __init__(self, path: Path, snapshot: RegistrySnapshot) -> None:
        self.path = path
        self.guard = SqliteGuard(path)
        self._snapshot = snapshot

    def check(self, patience: float) -> None:
        """Raises `RegistryUnavailableError`, with the way to restore, where the file cannot be believed."""
        problem = self.guard.problem(
            known=self._snapshot.known, holds_models=self._snapshot.holds_models, wait=patience
        )
        if problem is not None:
            details = {"file": str(self.path), "problem": problem.reason}
            raise RegistryUnavailableError(self._advice(problem), details=details)

    def confirm_same(self, before: Fingerprint | None) -> None:
        """Raises `RegistryUnavailableError` where the file was replaced while it was being written to."""
        now = self.guard.fingerprint()
        if before is None or now is None or now.inode != before.inode:
            raise RegistryUnavailableError(
                f"The model registry's file {self.path} was taken away while it was being written to; the change is "
                "in the file that was there before"
            )

    def create_where_new(self, timeout: float) -> bool:
        """Creates the file with an empty registry, whole or not at all, where there never was one; returns whether.

        Takes about 3 s.
        """
        if not self.guard.is_absent():
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked("create.lock", timeout):
            self._snapshot.load(again=True)
            self.check(timeout)
            return self.guard.is_absent() and self._create()

    def drop_connections(self) -> None:
        """Closes what MLflow keeps open to the file, or to one that was there before."""
        from src.core.registry.stores import dispose_engines

        dispose_engines(self.path)

    def sole_writer(self, timeout: float) -> AbstractContextManager[None]:
        """Keeps other processes of ours from writing meanwhile."""
        return self._locked("lock", timeout)

    def _create(self) -> bool:
        from src.core.registry.stores import create_sqlite_registry

        new = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.new")
        try:
            create_sqlite_registry(new)
            if not self.guard.is_absent():
                return False
            os.replace(new, self.path)
        except Exception as exc:
            raise RegistryUnavailableError(f"The model registry's file {self.path} cannot be created: {exc}") from exc
        finally:
            new.unlink(missing_ok=True)
        self._snapshot.update(names=())
        return True

    @contextmanager
    def _locked(self, suffix: str, timeout: float) -> Iterator[None]:
        with ExitStack() as held:
            try:
                held.enter_context(file_locked(self.path.with_name(f"{self.path.name}.{suffix}"), timeout=timeout))
            except TimeoutError as exc:
                raise RegistryUnavailableError("Another process is changing the model registry; try again") from exc
            except OSError as exc:
                raise RegistryUnavailableError(f"The model registry's folder cannot be written: {exc}") from exc
            yield

    def _advice(self, problem: FileProblem) -> str:
        message = f"The model registry's file {self.path} {problem.reason}"
        if problem.passing:
            return f"{message}; try again when that process is done"
        return (
            f"{message}. It is neither recreated nor overwritten: put the file back from a backup; or, to start over "
            f"with an empty registry, stop the service, remove what is left of the file and its snapshot "
            f"{self._snapshot.path}, and start again"
        )
