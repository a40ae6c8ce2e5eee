"""The hub's routes, as huggingface_hub 2.4 asks for them (`hf_api.py`, `file_download.py`), and who may take them."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from src.testing.fake_hub import listing
from src.testing.fake_hub.answers import Answer, Refused, as_json, redirect
from src.testing.fake_hub.repos import FakeCommit, FakeFile, FakeRepo, Kind

_VERBS = "revision|tree|refs|paths-info|resolve"
_NAME = rf"(?P<name>[^/]+(?:/(?!(?:{_VERBS})(?:/|$))[^/]+)?)"
_API = re.compile(
    rf"/api/(?P<kind>model|dataset)s/{_NAME}(?:/(?P<verb>{_VERBS})(?:/(?P<revision>[^/]+))?(?:/(?P<path>.+))?)?"
)
_RESOLVE = re.compile(rf"/(?:(?P<kind>dataset)s/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CACHED = re.compile(rf"/api/resolve-cache/(?P<kind>model|dataset)s/{_NAME}/(?P<revision>[0-9a-f]{{40}})/(?P<path>.+)")
_STORED = re.compile(rf"/stored/(?P<kind>model|dataset)s/{_NAME}/resolve/(?P<sha256>[0-9a-f]{{64}})")
_NO_TOKEN = (
    "Access to {} {} is restricted. You must have access to it and be authenticated to access it. Please log in."
)
_NOT_GRANTED = "Access to {} {} is restricted and you are not in the authorized list. Visit the hub to ask for access."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; `path` as it came, still quoted."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def parse(cls, method: str, target: str, headers: Mapping[str, str], body: bytes) -> "Asked":
        """Takes a request target apart; header names in lower case."""
        url = urlsplit(target)
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(method, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), lower, body)

    @property
    def token(self) -> str | None:
        """What the client authenticates with."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


class Routes:
    """Answers requests to the hub itself, and to the place where it keeps large files."""

    def __init__(
        self, repos: dict[tuple[str, str], FakeRepo], tokens: tuple[str, ...], page_size: int, signature: str
    ) -> None:
        self._repos = repos
        self._tokens = tokens
        self._page_size = page_size
        self._signature = signature

    def hub(self, asked: Asked, url: str, storage_url: str) -> Answer:
        """Answers a request to the hub; raises `Refused`."""
        if asked.token and asked.token not in self._tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        if found := _CACHED.fullmatch(asked.path):
            return self._content(asked, found)
        if found := _API.fullmatch(asked.path):
            return self._api(asked, found, url)
        if found := _RESOLVE.fullmatch(asked.path):
            return self._resolve(asked, found, storage_url)
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    def storage(self, asked: Asked) -> Answer:
        """Answers a request for a large file by its signed address; raises `Refused`."""
        if asked.token:  # object stores refuse two ways to authenticate; and it is none of their business
            raise Refused(400, "Only one auth mechanism allowed")
        found = _STORED.fullmatch(asked.path)
        if not found or asked.query.get("Signature") != self._signature:
            raise Refused(403, "Access Denied")
        repo = self._repos.get((found["kind"], unquote(found["name"])))
        file = repo.with_sha256(found["sha256"]) if repo else None
        if file is None:
            raise Refused(404, "The specified key does not exist.")
        # As asked for, since one content may lie at several paths.
        return _file_answer(FakeFile(asked.query.get("file", file.path), file.content), f'"{file.sha256[:32]}"', {})

    def _api(self, asked: Asked, found: re.Match[str], url: str) -> Answer:
        repo = self._repo(asked, found)
        if found["verb"] == "refs":
            return listing.refs(repo)
        commit = _commit(repo, found["revision"])
        if found["verb"] == "tree":
            below = unquote(found["path"] or "")
            return listing.tree(commit, f"{url}{asked.path}", below, asked.query, self._page_size)
        if found["verb"] == "paths-info":
            return listing.paths_info(
                commit, [value for name, value in parse_qsl(asked.body.decode()) if name == "paths"]
            )
        if found["verb"] in (None, "revision"):
            return listing.info(repo, commit, blobs="blobs" in asked.query)
        return as_json({"error": "Not found"}, 404)

    def _resolve(self, asked: Asked, found: re.Match[str], storage_url: str) -> Answer:
        repo, commit, file = self._readable(asked, found)
        place = f"{repo.kind}s/{quote(repo.name)}"
        etag = file.sha256 if file.is_lfs else file.blob_id
        headers = {"X-Repo-Commit": commit.id, "X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{etag}"'}
        if not file.is_lfs:
            return redirect(
                307, f"/api/resolve-cache/{place}/{commit.id}/{quote(file.path)}?etag=%22{etag}%22", headers
            )
        signed = f"file={quote(file.path, safe='')}&Signature={self._signature}"
        return redirect(302, f"{storage_url}/stored/{place}/resolve/{file.sha256}?{signed}", headers)

    def _content(self, asked: Asked, found: re.Match[str]) -> Answer:
        _, commit, file = self._readable(asked, found)
        return _file_answer(file, f'"{file.blob_id}"', {"X-Repo-Commit": commit.id})

    def _repo(self, asked: Asked, found: re.Match[str]) -> FakeRepo:
        kind: Kind = "dataset" if found["kind"] == "dataset" else "model"
        repo = self._repos.get((kind, unquote(found["name"])))
        if repo is None or (repo.private and asked.token not in repo.granted):
            if asked.token:
                raise Refused(404, "Repository not found", "RepoNotFound")
            # A stranger is not told what there is.
            raise Refused(401, "Invalid username or password.", "RepoNotFound")
        return repo

    def _readable(self, asked: Asked, found: re.Match[str]) -> tuple[FakeRepo, FakeCommit, FakeFile]:
        repo = self._repo(asked, found)
        commit = _commit(repo, found["revision"])
        if repo.gated and asked.token not in repo.granted:
            status, text = (403, _NOT_GRANTED) if asked.token else (401, _NO_TOKEN)
            raise Refused(status, text.format(repo.kind, repo.name), "GatedRepo")
        file = commit.files.get(unquote(found["path"]))
        if file is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        return repo, commit, file


def _commit(repo: FakeRepo, revision: str | None) -> FakeCommit:
    commit = repo.at(unquote(revision or "main"))
    if commit is None:
        raise Refused(404, f"Invalid rev id: {unquote(revision or 'main')}", "RevisionNotFound")
    return commit


def _file_answer(file: FakeFile, etag: str, headers: dict[str, str]) -> Answer:
    name = quote(posixpath.basename(file.path))
    disposition = f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"
    return Answer(200, {"Accept-Ranges": "bytes", "ETag": etag, "Content-Disposition": disposition, **headers}, file)
