"""The files of a repository on the hub: their digests there, and which of them to fetch."""

import fnmatch
import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from src.core.errors import InvalidInputError
from src.core.sources.file_names import checked_path, clash, is_bookkeeping

# Weights of other frameworks and pickles, which many repositories hold beside the same weights as safetensors.
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".ckpt")
_ORIGINALS = "original/"  # where Meta's repositories keep the weights as they were trained
_SHOWN = 10


class Hasher(Protocol):
    """What of `hashlib`'s objects is needed here."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file at one commit: its path, its size in bytes, its digest (`sha256:<hex>` or `git:<hex>`)."""

    path: str
    size: int
    digest: str

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> "HubFile":
        """Takes an entry of the hub's tree listing; raises `ValueError` or the like where it is none.

        Large files are kept by their sha256 (Git LFS), others as git blobs.
        """
        lfs = entry.get("lfs")
        size = lfs["size"] if lfs else entry["size"]
        digest = f"sha256:{lfs['oid']}" if lfs else f"git:{entry['oid']}"
        if not re.fullmatch(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}", digest) or not isinstance(size, int) or size < 0:
            raise ValueError(f"{entry!r} has no size or no digest")
        return cls(str(entry["path"]), size, digest)

    @property
    def key(self) -> str:
        """A file name that only this content at this path has."""
        return f"{self.digest.replace(':', '-')}.{hashlib.sha256(self.path.encode()).hexdigest()[:16]}"

    def hasher(self) -> Hasher:
        """Returns what computes its digest, ready for the content's first byte."""
        if self.digest.startswith("sha256:"):
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)  # git-hash-object(1)

    def matches(self, hasher: Hasher) -> bool:
        """Whether what was hashed is its content."""
        return self.digest.partition(":")[2] == hasher.hexdigest()


def choose(
    files: Iterable[HubFile], allow_patterns: Sequence[str] | None, *, spare_duplicates: bool
) -> tuple[list[HubFile], list[HubFile]]:
    """Returns which files to fetch, and those that are left out as the same weights in another format.

    Patterns are shell wildcards, in which `*` matches `/` too; one that ends with `/` means all below that
    folder. With patterns nothing else decides. Raises `InvalidInputError` where nothing matches, or where a
    chosen file has a path that cannot be written safely.
    """
    offered = [file for file in files if not is_bookkeeping(file.path)]
    patterns = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in allow_patterns or ()]
    chosen, left_out = offered, list[HubFile]()
    if patterns:
        chosen = [file for file in offered if any(fnmatch.fnmatchcase(file.path, pattern) for pattern in patterns)]
    elif spare_duplicates:
        left_out = _duplicates(offered)
        spared = set(left_out)
        chosen = [file for file in offered if file not in spared]
    if not chosen:
        raise _nothing(offered, patterns)
    _check_paths(chosen)
    return chosen, left_out


def _duplicates(offered: Sequence[HubFile]) -> list[HubFile]:
    """Returns weights that lie beside safetensors; a folder that has no others keeps its own."""
    folders = {posixpath.dirname(file.path) for file in offered if file.path.endswith(".safetensors")}
    return [
        file
        for file in offered
        if file.path.endswith(_OTHER_WEIGHTS)
        and (posixpath.dirname(file.path) in folders or (folders and file.path.startswith(_ORIGINALS)))
    ]


def _check_paths(files: Sequence[HubFile]) -> None:
    for file in files:
        checked_path(file.path)
    doubled = clash(file.path for file in files)
    if doubled is not None:
        raise InvalidInputError(
            f"The repository lists {doubled!r} twice, or as a folder too", details={"path": doubled}
        )


def _nothing(offered: Sequence[HubFile], patterns: Sequence[str]) -> InvalidInputError:
    paths = [file.path for file in offered]
    if not paths:
        return InvalidInputError("The repository holds no files at this revision")
    shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    asked = ", ".join(patterns)
    return InvalidInputError(
        f"No file matches allow_patterns ({asked}); there are: {shown}", details={"files": paths[:100]}
    )
