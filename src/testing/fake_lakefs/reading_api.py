"""Endpoints that read objects."""

import re
from collections.abc import Iterator
from email.utils import formatdate

from src.testing.fake_lakefs.asks import Ask
from src.testing.fake_lakefs.entries import Entry, Tree
from src.testing.fake_lakefs.errors import ApiError, cannot_presign
from src.testing.fake_lakefs.refs import Reference, resolve
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import Answer, FilePart, JsonObject, json_answer, refusal, sorted_page

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
GUARDED = {
    "content-disposition": "attachment",
    "content-security-policy": "default-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
}


class ReadingApi:
    """Gets, describes and lists objects of any reference."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, ask: Ask) -> Answer:
        """Returns an object's bytes, or a range of them."""
        entry = self._reference(ask).entry(ask.object_path)
        if ask.headers.get("if-none-match") == f'"{entry.checksum}"':
            return Answer(304)
        if ask.flag("presign"):
            raise cannot_presign()
        headers = _headers(entry) | GUARDED
        try:
            status, start, count, ranged = _range(ask.headers.get("range"), entry.size)
        except ValueError:
            headers["content-range"] = f"bytes */{entry.size}"
            return refusal(416, "Requested Range Not Satisfiable", headers)
        file = self._state.blobs.path(entry.address).open("rb", buffering=0)
        return Answer(status, headers | ranged, part=FilePart(file, start, count))

    def head(self, ask: Ask) -> Answer:
        """Returns what `get` would, without the bytes."""
        try:
            entry = self._reference(ask).entry(ask.object_path)
        except ApiError as exc:
            return Answer(exc.status)
        headers = {"accept-ranges": "bytes"} | _headers(entry)
        try:
            status, _, count, ranged = _range(ask.headers.get("range"), entry.size)
        except ValueError:
            return Answer(416, headers)
        return Answer(status, headers | ranged, length=count)

    def stat(self, ask: Ask) -> Answer:
        """Describes an object."""
        entry = self._reference(ask).entry(ask.object_path)
        if ask.flag("presign"):
            raise cannot_presign()
        metadata = entry.metadata if ask.flag("user_metadata", True) else None
        return json_answer(described(ask.object_path, entry) | {"metadata": dict(metadata or {})})

    def ls(self, ask: Ask) -> Answer:
        """Lists objects by path; with a delimiter, what lies deeper as one common prefix."""
        tree = self._reference(ask).tree
        if ask.flag("presign"):
            raise cannot_presign()
        found = _listed(tree, ask.text("prefix"), ask.text("delimiter"))
        with_metadata = ask.flag("user_metadata", True)
        return sorted_page(ask, found, lambda item: item[0], lambda item: _in_list(*item, with_metadata))

    def _reference(self, ask: Ask) -> Reference:
        return resolve(self._state.repository(ask.names["repository"]), ask.names["ref"])


def described(path: str, entry: Entry) -> JsonObject:
    """Returns an object's record, without its user metadata."""
    return {
        "checksum": entry.checksum,
        "content_type": entry.content_type,
        "mtime": entry.mtime,
        "path": path,
        "path_type": "object",
        "physical_address": entry.address,
        "size_bytes": entry.size,
    }


def _in_list(path: str, entry: Entry | None, with_metadata: bool) -> JsonObject:
    if entry is None:
        return {"checksum": "", "mtime": 0, "path": path, "path_type": "common_prefix", "physical_address": ""}
    metadata = {} if entry.metadata is None or not with_metadata else {"metadata": dict(entry.metadata)}
    return described(path, entry) | metadata


def _listed(tree: Tree, prefix: str, delimiter: str) -> Iterator[tuple[str, Entry | None]]:
    """Yields objects under a prefix, and each common prefix once."""
    prefixes = set()
    for path, entry in tree.items():
        if not path.startswith(prefix):
            continue
        deeper = path.find(delimiter, len(prefix)) if delimiter else -1
        common = path[: deeper + len(delimiter)]
        if deeper < 0:
            yield path, entry
        elif common not in prefixes:
            prefixes.add(common)
            yield common, None


def _headers(entry: Entry) -> dict[str, str]:
    return {
        "cache-control": "no-store, must-revalidate",
        "content-type": entry.content_type,
        "etag": f'"{entry.checksum}"',
        "expires": "0",
        "last-modified": formatdate(entry.mtime, usegmt=True),
    }


def _range(asked: str | None, size: int) -> tuple[int, int, int, dict[str, str]]:
    """Returns status, first byte, number of bytes and headers; raises `ValueError` past the end."""
    if asked is None:
        return 200, 0, size, {}
    parts = _RANGE.fullmatch(asked.strip())
    if parts is None or parts.groups() == ("", ""):
        raise ValueError(asked)
    first, last = parts.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise ValueError(asked)
    return 206, start, end - start + 1, {"content-range": f"bytes {start}-{end}/{size}"}
