"""The version stores that keep one contract, each with what a test needs to look behind it."""

import hashlib
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import StoreUnavailableError
from src.core.stores.base import Commit, FileEntry, VersionStore
from src.core.stores.lakefs import LakefsStore, objects
from src.core.stores.local import LocalStore
from src.testing.fake_lakefs import FakeLakefs

Plant = Callable[..., Path]

SERVER_SETTINGS = ("LAKEFS_ENDPOINT", "LAKEFS_ACCESS_KEY_ID", "LAKEFS_SECRET_ACCESS_KEY")


@dataclass
class Contender(ABC):
    """One kind of store. `repo` is a repository name that nobody else uses."""

    folder: Path
    repo: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:12]}")

    def open(self) -> VersionStore:
        """Returns a store over the same data, as another process has it."""
        store = eval(self.expression, {"Path": Path, "LakefsStore": LakefsStore, "LocalStore": LocalStore})
        assert isinstance(store, VersionStore)
        return store

    @property
    @abstractmethod
    def expression(self) -> str:
        """Python that makes the store, with `Path` and both classes in sight."""

    @abstractmethod
    def bytes_taken(self) -> int:
        """Returns how many bytes of files the store has taken in up to now."""

    @abstractmethod
    def flip_byte(self, commit: Commit, path: str) -> None:
        """Damages a file where the store keeps it."""

    @abstractmethod
    def unfinished(self) -> list[str]:
        """Returns what work that broke off has left behind."""

    @abstractmethod
    def leave_garbage(self, source: Path) -> None:
        """Leaves behind, long ago, what nothing reaches."""


class LocalContender(Contender):
    """The embedded store."""

    @property
    def expression(self) -> str:
        return f"LocalStore(Path({str(self.folder / 'store')!r}))"

    def bytes_taken(self) -> int:
        return sum(blob.stat().st_size for blob in self._blobs())

    def flip_byte(self, commit: Commit, path: str) -> None:
        sha256 = next(entry.sha256 for entry in commit.files if entry.path == path)
        blob = next(blob for blob in self._blobs() if blob.name == sha256)
        data = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(bytes([data[0] ^ 0xFF]) + data[1:])

    def unfinished(self) -> list[str]:
        return [path.name for path in (self.folder / "store/tmp").iterdir()]

    def leave_garbage(self, source: Path) -> None:
        self.open().upload(self.repo, source, branch="abandoned")
        self.open().delete_branch(self.repo, "abandoned")

    def _blobs(self) -> list[Path]:
        return [path for path in (self.folder / "store/blobs").rglob("*") if path.is_file()]


@dataclass
class LakefsContender(Contender):
    """The lakeFS store against some server."""

    address: str = ""
    key: str = ""
    secret: str = ""

    @property
    def expression(self) -> str:
        cache = str(self.folder / "cache")
        return f"LakefsStore({self.address!r}, {self.key!r}, {self.secret!r}, cache_dir=Path({cache!r}))"

    def flip_byte(self, commit: Commit, path: str) -> None:
        pytest.skip("the disk of a real lakeFS is out of a test's reach")

    def unfinished(self) -> list[str]:
        found = self._client().branches_api.list_branches(self.repo, show_hidden=True, prefix="aiml-").results
        return [branch.id for branch in found]

    def leave_garbage(self, source: Path) -> None:
        from lakefs_sdk.models.branch_creation import BranchCreation

        name = f"aiml-upload-{uuid.uuid4().hex[:16]}-{int(time.time()) - 10}"
        creation = BranchCreation(name=name, source="main", hidden=True)
        self._client().branches_api.create_branch(self.repo, creation)

    def _client(self) -> Any:
        store = self.open()
        assert isinstance(store, LakefsStore)
        return store._server._connection.client


@dataclass
class FakeContender(LakefsContender):
    """The lakeFS store against the fake server, whose recordings-based proof is `test_fake_lakefs`."""

    server: FakeLakefs = field(default_factory=FakeLakefs)

    def bytes_taken(self) -> int:
        return sum(request.bytes_received for request in self.server.requests if request.operation == "upload_object")

    def flip_byte(self, commit: Commit, path: str) -> None:
        self.server.corrupt(commit.repo, path, ref=commit.id)


@dataclass
class ServerContender(LakefsContender):
    """The lakeFS store against a real server."""

    sent: list[int] = field(default_factory=list)

    def bytes_taken(self) -> int:
        return sum(self.sent)


def names_a_server(environment: Mapping[str, str]) -> bool:
    """Whether a real lakeFS is named."""
    return all(environment.get(name) for name in SERVER_SETTINGS)


@contextmanager
def contender(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Contender]:
    """Yields a contender; skips where the real server does not answer."""
    if kind == "local":
        yield LocalContender(folder)
    elif kind == "lakefs-fake":
        with FakeLakefs() as server:
            keys = {"key": server.access_key_id, "secret": server.secret_access_key}
            yield FakeContender(folder, address=server.url, **keys, server=server)
    else:
        address, key, secret = (os.environ[name] for name in SERVER_SETTINGS)
        with _counted(ServerContender(folder, address=address, key=key, secret=secret), monkeypatch) as found:
            yield found


@contextmanager
def _counted(found: ServerContender, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerContender]:
    """Counts what is sent to a real server, and takes the repository away at the end."""
    from lakefs_sdk.exceptions import NotFoundException

    try:
        found.open().ping()
    except StoreUnavailableError as exc:
        pytest.skip(str(exc))
    original = objects.Objects.send

    def counting(self: objects.Objects, repo: str, branch: str, path: str, body: objects.Body, metadata: Any) -> str:
        found.sent.append(body.size)
        return original(self, repo, branch, path, body, metadata)

    monkeypatch.setattr(objects.Objects, "send", counting)
    yield found
    with suppress(NotFoundException):
        found._client().repositories_api.delete_repository(found.repo)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def entries(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    return tuple(sorted(FileEntry(p, hashlib.sha256(data).hexdigest(), len(data)) for p, data in files.items()))


def history(store: VersionStore, repo: str, ref: str = "main") -> list[Commit]:
    """The commits that somebody made: a new repository of lakeFS begins with one of its own, without files."""
    return [commit for commit in store.log(repo, ref) if commit.files]
