"""A repository as JSON: its information, the pages of its tree, its refs."""

import posixpath
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from src.testing.fake_hub.answers import Answer, Refused, as_json
from src.testing.fake_hub.repos import FakeCommit, FakeFile, FakeRepo

JsonObject = dict[str, Any]

_DATE = "2026-01-01T00:00:00.000Z"


def info(repo: FakeRepo, commit: FakeCommit, *, blobs: bool) -> Answer:
    """Returns what the hub tells about a repository at a commit; with sizes and digests where `blobs` asks for them."""
    owner = repo.name.rpartition("/")[0]
    value: JsonObject = {
        "_id": commit.id[:24],
        "id": repo.name,
        "author": owner or None,
        "sha": commit.id,
        "lastModified": _DATE,
        "createdAt": _DATE,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [_sibling(file, blobs) for file in commit.files.values()],
    }
    if repo.kind == "model":
        value["modelId"] = repo.name
    return as_json(value)


def tree(commit: FakeCommit, url: str, below: str, query: dict[str, str], page_size: int) -> Answer:
    """Returns one page of the tree below a folder, with a link to the next page where there is one."""
    entries = _entries(commit, below, recursive=query.get("recursive", "").lower() in ("true", "1"))
    if below and not entries:
        raise Refused(404, f'"{below}" does not exist on "{commit.id}"', "EntryNotFound")
    start = int(query.get("cursor", "0"))
    page, more = entries[start : start + page_size], len(entries) > start + page_size
    link = f"{url}?{urlencode({**query, 'cursor': str(start + page_size)})}"
    return as_json(page, headers={"Link": f'<{link}>; rel="next"'} if more else {})


def paths_info(commit: FakeCommit, paths: Iterable[str]) -> Answer:
    """Returns the tree's entries at some paths."""
    return as_json([_entry(commit.files[path]) for path in paths if path in commit.files])


def refs(repo: FakeRepo) -> Answer:
    """Returns branches and tags."""

    def described(kind: str, names: dict[str, str]) -> list[JsonObject]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit} for name, commit in names.items()]

    return as_json(
        {"branches": described("heads", repo.branches), "tags": described("tags", repo.tags), "converts": []}
    )


def _entries(commit: FakeCommit, below: str, *, recursive: bool) -> list[JsonObject]:
    found = [file for path, file in commit.files.items() if not below or path.startswith(f"{below}/")]
    folders = sorted({folder for file in found for folder in _folders(file.path) if folder.startswith(below)} - {below})
    entries: list[JsonObject] = [
        {"type": "directory", "oid": commit.id, "size": 0, "path": folder} for folder in folders
    ]
    entries += [_entry(file) for file in found]
    return [entry for entry in entries if recursive or posixpath.dirname(entry["path"]) == below]


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _folder_entry(commit: FakeCommit, path: str) -> JsonObject:
    return {"type": "directory", "oid": commit.id, "size": 0, "path": path}


def _entry(file: FakeFile) -> JsonObject:
    entry: JsonObject = {"type": "file", "oid": file.blob_id, "size": file.size, "path": file.path}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return entry


def _sibling(file: FakeFile, blobs: bool) -> JsonObject:
    if not blobs:
        return {"rfilename": file.path}
    sibling: JsonObject = {"rfilename": file.path, "blobId": file.blob_id, "size": file.size}
    if file.is_lfs:
        sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return sibling
