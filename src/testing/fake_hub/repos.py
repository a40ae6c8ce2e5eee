"""Repositories of the fake hub: files with the digests that git and Git LFS give them, commits, branches and tags."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

Kind = Literal["model", "dataset"]

_LFS_SIZE = 10_000_000  # bytes; the hub refuses larger files outside of LFS
_LFS_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".ckpt", ".onnx", ".gguf", ".parquet")
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class FakeFile:
    """One file: its path in the repository, and its bytes or where they are."""

    path: str
    content: bytes | Path

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def is_lfs(self) -> bool:
        """Whether the hub keeps it outside of git, as it does what is large or binary."""
        return self.size > _LFS_SIZE or self.path.endswith(_LFS_ENDINGS)

    @cached_property
    def sha256(self) -> str:
        """The digest by which LFS keeps it."""
        digest = hashlib.sha256()
        for chunk in self._chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """The id of its git blob: of the content, or of the pointer to it."""
        if self.is_lfs:
            return _git_blob([self.pointer], len(self.pointer))
        return _git_blob(self._chunks(), self.size)

    @property
    def pointer(self) -> bytes:
        """What git holds in place of an LFS file."""
        return _POINTER.format(self.sha256, self.size).encode()

    def open(self) -> BinaryIO:
        """Opens the bytes for reading."""
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else open(self.content, "rb")

    def _chunks(self) -> Iterator[bytes]:
        with self.open() as file:
            while chunk := file.read(_CHUNK):
                yield chunk


@dataclass(frozen=True)
class FakeCommit:
    """The whole tree at one commit; `id` is 40 hex digits."""

    id: str
    files: Mapping[str, FakeFile]


class FakeRepo:
    """A repository, with `files` as the first commit of the branch `main` where they are given.

    A gated one shows its list of files to everybody, and the files to those who send one of `granted` (tokens);
    a private one is not there for anybody else.
    """

    def __init__(
        self,
        name: str,
        files: Mapping[str, bytes | Path] | None = None,
        *,
        kind: Kind = "model",
        gated: bool = False,
        private: bool = False,
        granted: tuple[str, ...] = (),
    ) -> None:
        self.name, self.kind = name, kind
        self.gated, self.private, self.granted = gated, private, granted
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._commits: dict[str, FakeCommit] = {}
        if files is not None:
            self.commit(files)

    @classmethod
    def from_folder(cls, name: str, folder: Path, *, kind: Kind = "model") -> "FakeRepo":
        """Returns a repository that holds what is in a folder; the bytes stay there."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls(name, {path.relative_to(folder).as_posix(): path for path in found}, kind=kind)

    def commit(self, files: Mapping[str, bytes | Path], branch: str = "main") -> str:
        """Makes these files the new tree of a branch; returns the commit's id."""
        tree = {path: FakeFile(path, content) for path, content in sorted(files.items())}
        described = [self.name, self.branches.get(branch), [[file.path, file.blob_id] for file in tree.values()]]
        commit = FakeCommit(hashlib.sha1(json.dumps(described).encode()).hexdigest(), tree)
        self._commits[commit.id] = commit
        self.branches[branch] = commit.id
        return commit.id

    def tag(self, name: str, commit: str) -> None:
        """Names a commit."""
        self.tags[name] = commit

    def at(self, revision: str) -> FakeCommit | None:
        """Returns the commit that a branch, a tag or a commit id names."""
        return self._commits.get(self.branches.get(revision) or self.tags.get(revision) or revision)

    def with_sha256(self, sha256: str) -> FakeFile | None:
        """Returns the LFS file of that digest in any commit."""
        files = (file for commit in self._commits.values() for file in commit.files.values())
        return next((file for file in files if file.is_lfs and file.sha256 == sha256), None)


def _git_blob(chunks: Iterator[bytes] | list[bytes], size: int) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
