"""The bytes of a lakeFS commit's files: brought to a folder, or read once more to be checked."""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from src.core.errors import IntegrityError, InvalidInputError, NotFoundError
from src.core.stores.base import Commit, FileEntry
from src.core.stores.hashing import Meter
from src.core.stores.lakefs.objects import Objects
from src.core.stores.names import is_tree_path, listed


class CommitContents:
    """What a `Checkout` asks for, out of one commit."""

    def __init__(self, objects: Objects, commit: Commit) -> None:
        self._objects = objects
        self._commit = commit

    def holds(self, sha256: str, size: int) -> bool:
        """Lets everything pass: what the server lacks shows when it is fetched."""
        return True

    def place(self, entry: FileEntry, target: Path, meter: Meter) -> str:
        """Fetches a file, read-only, to `target`; returns the sha256 of what came, "" where nothing did."""
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with open(target, "xb") as copy:
            try:
                for chunk in self._chunks(entry):
                    digest.update(chunk)
                    copy.write(chunk)
                    meter.add(len(chunk))
            except NotFoundError:
                return ""
            copy.flush()
            os.fchmod(copy.fileno(), 0o444)
            os.fsync(copy.fileno())
        return digest.hexdigest()

    def is_whole(self, entry: FileEntry, meter: Meter) -> bool:
        """Reads a file from the server; whether it is there and has its sha256."""
        digest = hashlib.sha256()
        try:
            for chunk in self._chunks(entry):
                digest.update(chunk)
                meter.add(len(chunk))
        except NotFoundError:
            return False
        return digest.hexdigest() == entry.sha256

    def _chunks(self, entry: FileEntry) -> Iterator[bytes]:
        return self._objects.chunks(self._commit.repo, self._commit.id, entry.path)


def refuse_unplaceable(commit: Commit) -> None:
    """Refuses a tree that no folder can hold: lakeFS's keys may be `../x`, `a/`, or both `a` and `a/b`."""
    paths = {entry.path for entry in commit.files}
    bad = [path for path in paths if not is_tree_path(path)] + below_files(paths)
    if bad:
        raise InvalidInputError(
            f"{commit.repo}@{commit.id[:12]} cannot become a folder, because of {listed(bad)}: "
            "rename these objects in lakeFS",
            details={"repo": commit.repo, "commit": commit.id, "files": sorted(bad)},
        )


def refuse_damaged(commit: Commit, path: str, data: bytes) -> None:
    """Refuses what was read of a file if that is the whole of it and not what the commit says."""
    entry = next((entry for entry in commit.files if entry.path == path), None)
    if entry and entry.size == len(data) and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise damage(commit, [entry])


def below_files(paths: Collection[str]) -> list[str]:
    """Returns the paths that lie below another one, as if that were a folder."""
    return [path for path in paths if any(str(parent) in paths for parent in PurePosixPath(path).parents)]


def damage(commit: Commit, files: Collection[FileEntry]) -> IntegrityError:
    """Returns the error that names the damaged files of a commit."""
    paths = sorted(entry.path for entry in files)
    return IntegrityError(
        f"{commit.repo}@{commit.id}: missing from lakeFS's storage, or differing from their sha256: {listed(paths)}. "
        "Restore the storage from a backup, or upload the folder once without these files and once with them",
        details={"repo": commit.repo, "commit": commit.id, "files": paths},
    )
