"""Endpoints that write objects onto a branch."""

import time
from collections.abc import Iterator
from dataclasses import replace

from src.testing.fake_lakefs.asks import Ask, Schema
from src.testing.fake_lakefs.entries import Entry
from src.testing.fake_lakefs.errors import (
    ApiError,
    no_branch,
    not_found,
    path_exists,
    precondition_failed,
)
from src.testing.fake_lakefs.multipart import Multipart, part_named
from src.testing.fake_lakefs.reading_api import described
from src.testing.fake_lakefs.refs import resolve
from src.testing.fake_lakefs.repository import Branch, Repository
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import NO_CONTENT, Answer, json_answer

OCTETS = "application/octet-stream"
METADATA_PREFIX = "x-lakefs-meta-"
MAX_DELETED = 1000
COPY = Schema("ObjectCopyCreation", {"src_path": str, "src_ref": str, "force": bool, "shallow": bool}, ("src_path",))
METADATA = Schema("UpdateObjectUserMetadata", {"set": dict}, ("set",))
PATHS = Schema("PathList", {"paths": list}, ("paths",))


class WritingApi:
    """Uploads, copies and deletes objects; these endpoints take the lock themselves, and never while bytes move."""

    def __init__(self, state: State) -> None:
        self._state = state

    def upload(self, ask: Ask) -> Answer:
        """Stores the body, or the part `content` of a multipart one; nothing of it is seen before it is whole."""
        with self._state.lock:
            namespace = self._checked(ask)[0].namespace
        pieces, content_type = _content(ask)
        blob = self._state.blobs.store(namespace, pieces)
        metadata = _metadata(ask)
        entry = Entry(blob.address, blob.size, blob.checksum, int(time.time()), content_type, metadata or None)
        with self._state.lock:
            repository, branch = self._checked(ask)
            repository.stage(branch, ask.object_path, entry)
        return json_answer(described(ask.object_path, entry) | {"metadata": metadata}, 201)

    def delete(self, ask: Ask) -> Answer:
        """Deletes an object; one that is not there is no error."""
        with self._state.lock:
            repository, branch = self._branch(ask)
            repository.stage(branch, ask.object_path, None)
        return NO_CONTENT

    def delete_many(self, ask: Ask) -> Answer:
        """Deletes up to a thousand objects."""
        paths = ask.json(PATHS)["paths"]
        if len(paths) > MAX_DELETED:
            raise ApiError(500, f"request size exceeded, max paths is set to {MAX_DELETED}")
        with self._state.lock:
            repository, branch = self._branch(ask)
            for path in paths:
                repository.stage(branch, path, None)
        return json_answer({"errors": []})

    def copy(self, ask: Ask) -> Answer:
        """Copies an object, bytes and user metadata, from a reference of the same repository."""
        given = ask.json(COPY)
        path = ask.text("dest_path")
        if not path:
            raise ApiError(400, "missing path: required value: validation error")
        force = given.get("force", False)
        with self._state.lock:
            repository, branch = self._branch(ask, force)
            found = resolve(repository, given.get("src_ref") or branch.name).entry(given["src_path"])
        address = self._state.blobs.copy(repository.namespace, found.address)
        copied = replace(found, address=address, mtime=int(time.time()))
        with self._state.lock:
            repository, branch = self._branch(ask, force)
            repository.stage(branch, path, copied)
        return json_answer(described(path, copied) | {"metadata": dict(copied.metadata or {})}, 201)

    def set_metadata(self, ask: Ask) -> Answer:
        """Puts other user metadata in place of an object's own."""
        given = ask.json(METADATA)["set"]
        with self._state.lock:
            repository, branch = self._branch(ask)
            found = repository.entry(branch, ask.object_path)
            if found is None:
                raise not_found()
            repository.stage(branch, ask.object_path, replace(found, metadata=dict(given)))
        return NO_CONTENT

    def _branch(self, ask: Ask, force: bool = False) -> tuple[Repository, Branch]:
        repository = self._state.writable(ask.names["repository"], force or ask.force)
        if ask.names["branch"] not in repository.branches:
            raise no_branch(ask.names["branch"])
        return repository, repository.branches[ask.names["branch"]]

    def _checked(self, ask: Ask) -> tuple[Repository, Branch]:
        """Returns where to upload to; 412 where the path does not hold what the client expects."""
        repository, branch = self._branch(ask)
        found = repository.entry(branch, ask.object_path)
        free, expected = ask.headers.get("if-none-match"), ask.headers.get("if-match")
        if free not in (None, "*"):
            raise ApiError(400, 'Unsupported value for If-None-Match - Only "*" is supported')
        if free and found:
            raise path_exists()
        if expected and (found is None or expected.strip('"') != found.checksum):
            raise precondition_failed()
        return repository, branch


def _content(ask: Ask) -> tuple[Iterator[bytes], str]:
    """Returns an upload's bytes and content type."""
    kind = ask.headers.get_content_type() if ask.headers.get("content-type") else OCTETS
    if kind != "multipart/form-data":
        return ask.body.pieces(), ask.headers.get("content-type") or OCTETS
    boundary = ask.headers.get_boundary()
    if not boundary:
        raise ApiError(500, "no multipart boundary param in Content-Type")
    parts = Multipart(ask.body, boundary)
    headers = part_named(parts, "content")
    if headers is None:
        raise ApiError(500, "multipart upload missing key 'content': http: no such file")
    return parts.content(), headers.get("content-type", "")


def _metadata(ask: Ask) -> dict[str, str]:
    named = {name.lower(): value for name, value in ask.headers.items()}
    return {
        name.removeprefix(METADATA_PREFIX): value for name, value in named.items() if name.startswith(METADATA_PREFIX)
    }
