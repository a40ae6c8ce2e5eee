"""Commits of lakeFS with the whole tree of each.

A file's sha256 travels as user metadata of its object, under the key `sha256`. An object that
somebody else put there has none: it is read once, and the digest remembered. A commit never changes, so
its tree is listed once and kept below the cache folder:

    commits/<repo>/<commit id>.json    the sha256 of the rest, then a commit as `commits` writes it
    digests/<sha256 of the object's address, checksum and size>    the sha256 of its bytes
"""

import hashlib
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.core.errors import IntegrityError
from src.core.stores.base import Commit, FileEntry
from src.core.stores.commits import decode, encode
from src.core.stores.disk import unique_name
from src.core.stores.lakefs.objects import Objects
from src.core.stores.lakefs.parallel import Threads
from src.core.stores.lakefs.server import Server
from src.core.stores.names import is_sha256

if TYPE_CHECKING:
    from lakefs_sdk.models.commit import Commit as FoundCommit
    from lakefs_sdk.models.object_stats import ObjectStats

SHA256_KEY = "sha256"
DIGEST_KEY = "aiml-digest"
"""The key in a commit's metadata that holds the content digest of its tree."""

_SERVERS_KEYS = ".lakefs."  # what the server adds to a merge's metadata begins so


class Trees:
    """Commits as this platform knows them."""

    def __init__(self, server: Server, objects: Objects, cache: Path, threads: Threads) -> None:
        self._server = server
        self._objects = objects
        self._commits = cache / "commits"
        self._digests = cache / "digests"
        self._threads = threads

    def commit(self, repo: str, ref: str) -> Commit:
        """Returns the commit that a ref names, from the server, with its tree."""
        return self._with_tree(repo, self._server.find(repo, ref))

    def log(self, repo: str, ref: str, limit: int) -> list[Commit]:
        """Returns commits along first parents; a file that would have to be read first has the sha256 ""."""
        found = self._server.log(repo, ref, limit)
        return self._threads.each(lambda one: self._with_tree(repo, one, reading=False), found)

    def files(self, repo: str, ref: str, *, reading: bool = True) -> tuple[FileEntry, ...]:
        """Returns what is at a commit, or at a branch with what is not committed yet."""
        found = [one for one in self._objects.listed(repo, ref) if not _marks_folder(one)]
        digests = [self._known_digest(one) for one in found]
        if reading:
            unknown = [one for one, sha256 in zip(found, digests, strict=True) if not sha256]
            read = iter(self._threads.each(lambda one: self._read_digest(repo, ref, one), unknown))
            digests = [sha256 or next(read) for sha256 in digests]
        entries = (FileEntry(one.path, sha256, one.size_bytes or 0) for one, sha256 in zip(found, digests, strict=True))
        return tuple(sorted(entries))

    def remembered(self, repo: str, commit_id: str) -> Commit | None:
        """Returns a commit whose tree was seen before, without the server."""
        try:
            sha256, _, data = (self._commits / repo / f"{commit_id}.json").read_bytes().partition(b"\n")
            return replace(decode(sha256.decode(), data), id=commit_id)
        except (FileNotFoundError, IntegrityError, UnicodeDecodeError):
            return None

    def forget(self, keep: Collection[tuple[str, str]], older_than: float) -> None:
        """Drops remembered trees that are in none of the (repository, commit id) and were seen long ago."""
        before = time.time() - older_than
        for path in self._commits.glob("*/*.json"):
            if (path.parent.name, path.stem) not in keep:
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before:
                        path.unlink()

    def _with_tree(self, repo: str, found: "FoundCommit", *, reading: bool = True) -> Commit:
        known = self.remembered(repo, found.id)
        return known or self.noted(repo, found, self.files(repo, found.id, reading=reading))

    def noted(self, repo: str, found: "FoundCommit", files: tuple[FileEntry, ...]) -> Commit:
        """Returns a commit whose tree is known to the caller, and remembers it."""
        metadata = {
            key: value
            for key, value in (found.metadata or {}).items()
            if key != DIGEST_KEY and not key.startswith(_SERVERS_KEYS)
        }
        created_at = float(found.creation_date)
        commit = Commit(found.id, repo, found.message, tuple(found.parents), created_at, files, metadata)
        if all(entry.sha256 for entry in files):
            _replace(self._commits / repo / f"{commit.id}.json", _encoded(commit))
        return commit

    def _known_digest(self, found: "ObjectStats") -> str:
        sha256 = (found.metadata or {}).get(SHA256_KEY, "")
        if is_sha256(sha256):
            return sha256
        try:
            sha256 = self._note(found).read_text(encoding="ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        return sha256 if is_sha256(sha256) else ""

    def _read_digest(self, repo: str, ref: str, found: "ObjectStats") -> str:
        digest = hashlib.sha256()
        for chunk in self._objects.chunks(repo, ref, found.path):
            digest.update(chunk)
        _replace(self._note(found), digest.hexdigest().encode())
        return digest.hexdigest()

    def _note(self, found: "ObjectStats") -> Path:
        """Returns where the digest of somebody else's object is kept; lakeFS never writes to an address twice."""
        key = f"{found.physical_address} {found.checksum} {found.size_bytes}"
        return self._digests / hashlib.sha256(key.encode()).hexdigest()


def _marks_folder(found: "ObjectStats") -> bool:
    """Whether an object is an empty folder, as tools that speak S3 leave them."""
    return found.path.endswith("/") and not found.size_bytes


def _encoded(commit: Commit) -> bytes:
    data = encode(commit)
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def _replace(path: Path, data: bytes) -> None:
    """Writes a file in one step, not durably: losing it costs only time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(unique_name())
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
