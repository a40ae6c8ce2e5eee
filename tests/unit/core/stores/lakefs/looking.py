"""What tests look at behind a store, and what others do on the same server."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from src.core.stores.base import FileEntry
from src.core.stores.lakefs import LakefsStore
from src.testing.fake_lakefs import FakeLakefs

OpenStore = Callable[..., LakefsStore]
Plant = Callable[[Mapping[str, bytes]], Path]

ROOT = Path(__file__).resolve().parents[5]


def client_of(store: LakefsStore) -> Any:
    """The official client."""
    return store._server._connection.client


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def entries(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    return tuple(sorted(FileEntry(p, hashlib.sha256(data).hexdigest(), len(data)) for p, data in files.items()))


def asked(server: FakeLakefs) -> Counter[str | None]:
    """Counts the requests so far by operation, and forgets them."""
    counts = Counter(request.operation for request in server.requests)
    server.requests.clear()
    return counts


def own_branches(store: LakefsStore, repo: str) -> list[str]:
    """Lists the branches of uploads and turns."""
    return [
        one.id for one in client_of(store).branches_api.list_branches(repo, prefix="aiml-", show_hidden=True).results
    ]


def put(store: LakefsStore, repo: str, path: str, data: bytes, *, commit: bool = True) -> None:
    """Puts an object on `main` as somebody else would: with the official client, without our metadata."""
    from lakefs_sdk.models.commit_creation import CommitCreation

    client_of(store).objects_api.upload_object(repo, "main", path, content=data)
    if commit:
        client_of(store).commits_api.commit(repo, "main", CommitCreation(message="by hand"))
