"""What the server holds: repositories, and the storage namespaces that were ever used."""

import re
import threading
import time

from src.testing.fake_lakefs.blobs import Blobs
from src.testing.fake_lakefs.errors import ApiError, not_found, not_unique, read_only
from src.testing.fake_lakefs.repository import Repository

NAMESPACE = "^local://"


class State:
    """Everything that outlives a restart; `lock` guards all but the bytes of objects."""

    def __init__(self, deletion_seconds: float) -> None:
        self.lock = threading.RLock()
        self.blobs = Blobs()
        self.repositories: dict[str, Repository] = {}
        self._deletion_seconds = deletion_seconds
        self._leaving: dict[str, tuple[float, Repository]] = {}
        self._namespaces: set[str] = set()

    def create(self, name: str, namespace: str, default_branch: str, is_read_only: bool) -> Repository:
        """Creates a repository; 409 where its name is taken, 400 where its namespace is, or was."""
        if self._known(name):
            raise not_unique("error creating repository")
        if not re.match(NAMESPACE, namespace):
            raise ApiError(400, f"failed to match required regex {NAMESPACE}: invalid namespace")
        self._take(namespace.rstrip("/"))
        self.repositories[name] = Repository(name, namespace, default_branch, is_read_only)
        return self.repositories[name]

    def repository(self, name: str) -> Repository:
        """Returns a repository; for a while after its deletion an empty shell of it, then 404."""
        found = self._known(name)
        if found is None:
            raise not_found("repository")
        return found

    def writable(self, name: str, force: bool = False) -> Repository:
        """Returns a repository that may be changed; 403 where it is read-only and nobody insists."""
        found = self.repository(name)
        if found.read_only and not force:
            raise read_only()
        return found

    def delete(self, name: str, force: bool = False) -> None:
        """Deletes a repository. Its namespace stays taken: the objects in it are not deleted."""
        self.writable(name, force)
        repository = self.repositories.pop(name, None)
        if repository is None:
            raise not_found("repository")
        repository.clear()
        self._leaving[name] = (time.monotonic() + self._deletion_seconds, repository)

    def _known(self, name: str) -> Repository | None:
        if name in self.repositories:
            return self.repositories[name]
        until, repository = self._leaving.get(name, (0.0, None))
        return repository if time.monotonic() < until else None

    def _take(self, namespace: str) -> None:
        if namespace in self._namespaces:
            found = f"found lakeFS objects in the storage (:{namespace}) key(_lakefs/dummy)"
            raise ApiError(400, f"failed to create repository: {found}: storage namespace already in use")
        self._namespaces.add(namespace)
