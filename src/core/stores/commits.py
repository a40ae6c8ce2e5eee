"""The bytes of a commit, and its id.

A commit is stored as the JSON object

    {"created_at":…,"files":[[path,sha256,size],…],"message":…,"metadata":{…},"parents":[…],"repo":…}

with sorted keys, no white space, characters unescaped, UTF-8, files sorted by path (code points) and
no newline at the end. Its id is the sha256 (64 hex digits) of exactly these bytes, so that
`sha256sum <id>.json` prints the file's own name.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from src.core.errors import IntegrityError, InvalidInputError
from src.core.stores.base import Commit, FileEntry
from src.core.stores.names import is_sha256, is_tree_path


def compose(
    repo: str, parents: tuple[str, ...], files: Iterable[FileEntry], message: str, metadata: Mapping[str, str]
) -> Commit:
    """Makes a commit of the present moment."""
    draft = Commit("", repo, message, parents, time.time(), tuple(sorted(files)), dict(metadata))
    return replace(draft, id=hashlib.sha256(encode(draft)).hexdigest())


def encode(commit: Commit) -> bytes:
    """Returns the canonical bytes of a commit; raises `InvalidInputError` for text that is not Unicode."""
    document = {
        "created_at": commit.created_at,
        "files": [[entry.path, entry.sha256, entry.size] for entry in commit.files],
        "message": commit.message,
        "metadata": dict(commit.metadata),
        "parents": list(commit.parents),
        "repo": commit.repo,
    }
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError("a commit's message and metadata must be valid Unicode") from exc


def decode(commit_id: str, data: bytes) -> Commit:
    """Returns the commit in `data`; raises `IntegrityError` where it is not the one of that id."""
    if hashlib.sha256(data).hexdigest() != commit_id:
        raise IntegrityError(f"the stored commit {commit_id} differs from its id: restore it from a backup")
    try:
        document = json.loads(data)
        files = tuple(_entry(*row) for row in document["files"])
        return Commit(id=commit_id, **{**document, "files": files, "parents": tuple(document["parents"])})
    except (KeyError, TypeError, ValueError) as exc:
        raise IntegrityError(f"the stored commit {commit_id} is not a commit: {exc}") from exc


def _entry(path: str, sha256: str, size: int) -> FileEntry:
    if not (is_tree_path(path) and is_sha256(sha256)):
        raise ValueError(f"it names an impossible file, {path!r}")
    return FileEntry(path, sha256, size)
