"""The objects of a lakeFS repository: listed, streamed out and in, deleted.

The client's own calls for an object's bytes hold them in memory, and its writer copies them to disk
first. Here they go from file to socket and back in chunks of 2 MiB.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

from src.core.errors import StoreUnavailableError
from src.core.stores.hashing import CHUNK
from src.core.stores.lakefs.answers import foreign
from src.core.stores.lakefs.connection import Connection
from src.core.stores.lakefs.patience import ATTEMPTS, PAUSE, patiently

if TYPE_CHECKING:
    from lakefs_sdk.models.object_stats import ObjectStats

_DELETED_AT_ONCE = 1000


class Body(Protocol):
    """Bytes to send; iterating over it begins anew each time."""

    size: int
    failure: Exception | None
    """What went wrong while the bytes were read."""

    def __iter__(self) -> Iterator[memoryview]: ...


class Objects:
    """The objects of all repositories of one server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def listed(self, repo: str, ref: str) -> Iterator["ObjectStats"]:
        """Yields what is at a ref, with user metadata; at a branch that includes what is not committed yet."""
        api = self._connection.client.objects_api
        what = f"the files of {ref!r} in {repo!r}"
        return self._connection.pages(what, api.list_objects, repo, ref, user_metadata=True)

    def size(self, repo: str, ref: str, path: str) -> int:
        """Returns the bytes of an object; raises `NotFoundError` without it."""
        api = self._connection.client.objects_api
        return self._connection.ask(_named(repo, ref, path), api.stat_object, repo, ref, path).size_bytes or 0

    def chunks(self, repo: str, commit_id: str, path: str, *, limit: int | None = None) -> Iterator[bytes]:
        """Yields an object's bytes, or the first `limit` of them; goes on where a connection broke."""
        done, attempt = 0, 1
        while True:
            try:
                for chunk in self._chunks(repo, commit_id, path, done, limit):
                    yield chunk
                    done += len(chunk)
                    attempt = 1
                return
            except StoreUnavailableError:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(PAUSE * attempt)
                attempt += 1

    def send(self, repo: str, branch: str, path: str, body: Body, metadata: dict[str, str]) -> str:
        """Puts an object on a branch, with user metadata; returns the md5 that lakeFS computed, in hex."""
        return patiently(lambda: self._send(repo, branch, path, body, metadata))

    def delete(self, repo: str, branch: str, paths: Iterable[str]) -> None:
        """Takes objects off a branch; one that is not there is no error."""
        from lakefs_sdk.models.path_list import PathList

        api = self._connection.client.objects_api
        for some in _batches(list(paths)):
            what = f"deleting on branch {branch!r} of {repo!r}"
            failed = self._connection.ask(what, api.delete_objects, repo, branch, PathList(paths=some)).errors
            if failed:
                raise StoreUnavailableError(f"{what}: lakeFS could not delete {failed[0].path!r}: {failed[0].message}")

    def _chunks(self, repo: str, commit_id: str, path: str, begin: int, limit: int | None) -> Iterator[bytes]:
        what = _named(repo, commit_id, path)
        headers = {"Range": f"bytes={begin}-{'' if limit is None else limit - 1}"} if begin or limit else {}
        with self._connection.streamed(what, "GET", _url(repo, "refs", commit_id, path), headers) as response:
            if response.status == 416:  # nothing is left: an empty object, or the connection broke at the end
                return
            if begin and response.status != 206:
                raise StoreUnavailableError(f"{what}: lakeFS cannot go on where the connection broke")
            for chunk in response.stream(CHUNK, decode_content=False):
                yield chunk if limit is None else chunk[: limit - begin]
                begin += len(chunk)
                if limit is not None and begin >= limit:
                    return

    def _send(self, repo: str, branch: str, path: str, body: Body, metadata: dict[str, str]) -> str:
        what = f"sending {path!r} to {repo!r}"
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(body.size),
            **{f"x-lakefs-meta-{key}": value for key, value in metadata.items()},
        }
        url = _url(repo, "branches", branch, path)
        try:
            with self._connection.streamed(what, "POST", url, headers, body) as response:
                answer = response.data
        except StoreUnavailableError:
            if body.failure:  # an error of our own reading, which the network's layer took for one of its own
                raise body.failure from None
            raise
        try:
            return str(json.loads(answer)["checksum"])
        except (KeyError, TypeError, ValueError) as exc:
            raise foreign(self._connection.address, what) from exc


def _url(repo: str, kind: str, ref: str, path: str) -> str:
    query = urlencode({"path": path}, quote_via=quote)
    return f"/repositories/{quote(repo)}/{kind}/{quote(ref)}/objects?{query}"


def _named(repo: str, ref: str, path: str) -> str:
    return f"{path!r} in {repo}@{ref[:12]}"


def _batches(paths: list[str]) -> Iterator[list[str]]:
    return (paths[first : first + _DELETED_AT_ONCE] for first in range(0, len(paths), _DELETED_AT_ONCE))
