"""One upload: a folder becomes the new state of a branch, in one commit, or nothing happens.

The files are sent to a hidden branch of the upload's own, committed there, and merged into the target as
one commit (squashed); then that branch goes, whatever happened. Where the target's head has moved meanwhile, it is
merged into the own branch first and the tree put right again, so that the last upload wins with exactly its
own tree. An upload that was killed leaves its branch behind: the same one again, from the same cache folder,
goes on there and sends only what is missing.
"""

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.core.errors import ConflictError, IntegrityError, NotFoundError, StoreUnavailableError
from src.core.stores.base import Commit, FileEntry
from src.core.stores.hashing import Meter
from src.core.stores.history import compare
from src.core.stores.lakefs.folder import Folder, Outgoing
from src.core.stores.lakefs.names import LANDING_SUFFIX, UPLOAD_PREFIX
from src.core.stores.lakefs.objects import Objects
from src.core.stores.lakefs.parallel import Threads
from src.core.stores.lakefs.patience import patiently
from src.core.stores.lakefs.server import Server
from src.core.stores.lakefs.trees import DIGEST_KEY, SHA256_KEY, Trees
from src.core.stores.lakefs.turns import Turns, drop_branch

if TYPE_CHECKING:
    from lakefs_sdk.models.commit import Commit as FoundCommit

_ATTEMPTS = 5  # to land, where others move the branch without taking turns
_OFTEN_TOO_LARGE = 5 * 1000**3  # bytes; S3 takes no more in one piece


@dataclass(frozen=True)
class Target:
    """Where an upload goes. A missing branch begins at the default branch's head."""

    repo: str
    branch: str
    default_branch: str


@dataclass(frozen=True)
class Head:
    """The commit that a branch stands at, or would begin at."""

    commit_id: str
    exists: bool


@dataclass(frozen=True)
class Services:
    """What an upload works with."""

    server: Server
    objects: Objects
    trees: Trees
    turns: Turns
    threads: Threads


class Upload:
    """Brings one branch to one tree."""

    def __init__(
        self,
        services: Services,
        target: Target,
        folder: Folder,
        message: str,
        metadata: Mapping[str, str],
        meter: Meter,
    ) -> None:
        self._with = services
        self._target = target
        self._repo = target.repo
        self._folder = folder
        self._message = message or f"Upload {len(folder.entries)} files"  # lakeFS would name our own branch
        self._metadata = {**metadata, DIGEST_KEY: folder.digest}
        self._meter = meter
        self._own_branches: list[str] = []

    def run(self, writer_id: str) -> Commit:
        """Does it; only one upload of the same writer, target and tree may run at a time."""
        head = self._head()
        present = self._with.trees.commit(self._repo, head.commit_id)
        if present.files == self._folder.entries:
            self._meter.add(self._folder.size)
            return present if head.exists else self._pointed(writer_id, present)
        with self._own_branch(writer_id, head) as (work, fresh):
            own = self._fill(work, present.files if fresh else None)
            with self._with.turns.taken(self._repo, self._target.branch, own.id):
                return self._land(work, own)

    def _head(self) -> Head:
        try:
            return Head(self._with.server.branch(self._repo, self._target.branch), True)
        except NotFoundError:
            return Head(self._with.server.branch(self._repo, self._target.default_branch), False)

    def _pointed(self, writer_id: str, present: Commit) -> Commit:
        try:
            self._with.server.create_branch(self._repo, self._target.branch, present.id)
        except ConflictError:  # somebody has created it just now
            return self.run(writer_id)
        return present

    @contextmanager
    def _own_branch(self, writer_id: str, head: Head) -> Iterator[tuple[str, bool]]:
        """Yields a branch of this upload's own and whether it is fresh, or else left behind by the same upload."""
        key = f"{writer_id} {self._repo} {self._target.branch} {self._folder.digest}"
        prefix = f"{UPLOAD_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:16]}-"
        left = sorted(self._with.server.branches(self._repo, prefix=prefix, hidden=True))
        work = left[0] if left else f"{prefix}{int(time.time())}"
        self._own_branches = left or [work]
        try:
            if not left:
                self._with.server.create_branch(self._repo, work, head.commit_id, hidden=True)
            yield work, not left
        finally:
            for name in self._own_branches:
                drop_branch(self._with.server, self._repo, name)

    def _fill(self, work: str, present: Collection[FileEntry] | None) -> "FoundCommit":
        """Commits exactly the folder to the own branch; `present` is what that holds, where known."""
        if present is None:
            present = self._with.trees.files(self._repo, work)
        change = compare(present, self._folder.entries)
        differing = {*change.added, *change.changed}
        self._meter.add(sum(entry.size for entry in self._folder.entries if entry.path not in differing))
        self._with.objects.delete(self._repo, work, change.removed)
        to_send = [entry for entry in self._folder.entries if entry.path in differing]
        self._with.threads.each(lambda entry: self._send(work, entry), to_send, self._meter)
        self._with.server.commit(self._repo, work, self._message, self._metadata)
        own = self._with.server.find(self._repo, work)
        if self._with.trees.files(self._repo, own.id) != self._folder.entries:
            raise IntegrityError(f"lakeFS shows other files in {self._repo}@{own.id} than were sent: try again")
        return own

    def _send(self, work: str, entry: FileEntry) -> None:
        outgoing = Outgoing(self._folder.sources[entry.path], entry, self._meter)
        metadata = {SHA256_KEY: entry.sha256}
        try:
            checksum = self._with.objects.send(self._repo, work, entry.path, outgoing, metadata)
        except StoreUnavailableError as exc:
            if entry.size <= _OFTEN_TOO_LARGE:
                raise
            raise StoreUnavailableError(
                f"{exc.message}. The file is larger than 5 GB, which the object store behind lakeFS may refuse to "
                "take in one piece: split it, as safetensors shards are"
            ) from exc
        if checksum != outgoing.md5:
            raise IntegrityError(
                f"{entry.path!r} arrived at lakeFS with other bytes than were sent (md5 {checksum}, sent "
                f"{outgoing.md5}): try again",
                details={"files": [entry.path]},
            )

    def _land(self, work: str, own: "FoundCommit") -> Commit:
        """Brings the own branch, at `own`, into the target."""
        base = next(iter(own.parents), "")
        for attempt in range(1, _ATTEMPTS + 1):
            head = self._head()
            if head.commit_id != base:
                own, base = self._take_in(work, head.commit_id), head.commit_id
            try:
                commit_id = self._joined(work, own, head)
            except StoreUnavailableError:
                if attempt == _ATTEMPTS:
                    raise
                continue  # perhaps it was done and only the answer was lost: the head tells
            if commit_id and (commit := self._exact(commit_id, own)):
                return commit
        raise ConflictError(
            f"branch {self._target.branch!r} of {self._repo!r} is being moved by others all the time: upload again"
        )

    def _exact(self, commit_id: str, own: "FoundCommit") -> Commit | None:
        """Returns a commit if its tree is the folder's, which is usually to be seen without a listing."""
        found = patiently(lambda: self._with.server.find(self._repo, commit_id))
        if found.meta_range_id == own.meta_range_id:
            return self._with.trees.noted(self._repo, found, self._folder.entries)
        commit = self._with.trees.commit(self._repo, commit_id)
        return commit if commit.files == self._folder.entries else None

    def _take_in(self, work: str, head: str) -> "FoundCommit":
        """Makes the own branch a descendant of the target's head without taking over what that head holds."""
        self._with.server.merge(
            self._repo, head, work, self._message, self._metadata, strategy="dest-wins", allow_empty=True
        )
        return self._fill(work, None)

    def _joined(self, work: str, own: "FoundCommit", head: Head) -> str:
        """Returns the commit that the target stands at now; "" where somebody else has moved it."""
        if not head.exists:
            return self._begun(work, own, head)
        merged = self._with.server.merge(
            self._repo, work, self._target.branch, self._message, self._metadata, squash=True
        )
        return {"merged": merged.commit_id, "nothing": head.commit_id, "conflict": ""}[merged.outcome]

    def _begun(self, work: str, own: "FoundCommit", head: Head) -> str:
        """Creates the target at one commit of ours that continues the default branch."""
        commit_id = own.id
        if (own.parents, own.message, own.metadata) != ([head.commit_id], self._message, self._metadata):
            landing = f"{work}{LANDING_SUFFIX}"
            self._own_branches.append(landing)
            self._with.server.create_branch(self._repo, landing, head.commit_id, hidden=True)
            merged = self._with.server.merge(self._repo, work, landing, self._message, self._metadata, squash=True)
            commit_id = merged.commit_id or head.commit_id
        try:
            self._with.server.create_branch(self._repo, self._target.branch, commit_id)
        except ConflictError:
            return ""
        return commit_id
