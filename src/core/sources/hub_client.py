"""The hub over HTTP: which commit a revision is, what files it holds, and their bytes from any position.

The session, its proxies, the headers and the meaning of refusals are huggingface_hub's own. Its file download is
not used: as of version 2.4 it throws a half file away, checks no digest, and takes bytes in steps of 10 MB.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from src.core.errors import ConfigurationError, SourceUnavailableError
from src.core.sources.hub_errors import Repository, translated
from src.core.sources.hub_files import HubFile
from src.core.sources.hub_patience import Patience

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LISTING_SECONDS = 60.0


class HubClient:
    """Reads one repository. Every method blocks; every method may be called from any thread."""

    def __init__(self, kind: str, name: str, *, endpoint: str | None, token: str | None) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        # Whoever imported the library first: it asks for a list of agents otherwise, and keeps it in ~/.cache.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        address = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", address):
            raise ConfigurationError(f"HF_ENDPOINT is '{address}', which is no address: give http(s)://host[:port]")
        self.repo = Repository(kind, name, address)
        self._token = _checked_token(token)
        self._headers = build_hf_headers(token=self._token)
        self._silence: float = constants.HF_HUB_DOWNLOAD_TIMEOUT

    def commit_of(self, revision: str | None) -> str:
        """Returns the commit that a branch, a tag or a commit hash names; the default branch's without one."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.repo.endpoint, token=self._token)
        with translated(self.repo, revision), self._as_a_hub():
            found = api.repo_info(self.repo.name, repo_type=self.repo.kind, revision=revision, timeout=self._silence)
            commit = str(found.sha)
            if not _COMMIT.fullmatch(commit):
                raise ValueError(f"{commit!r} is no commit")
        return commit

    def files(self, commit: str, patience: Patience) -> list[HubFile]:
        """Returns the files at a commit, page by page as the hub lists them."""
        url: str | None = f"{self.repo.endpoint}/api/{self.repo.kind}s/{self.repo.name}/tree/{commit}?recursive=true"
        files: list[HubFile] = []
        seen: set[str] = set()
        while url:
            seen.add(url)
            entries, url = patience.persist(partial(self._page, url))
            files += entries
            if url in seen:
                raise self._unlike_a_hub("its list of files goes in circles")
        return files

    @contextmanager
    def content(self, commit: str, path: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Opens a file at a byte position; yields where its bytes begin (0 where the server cannot), and the bytes."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

        repo = self.repo
        url = hf_hub_url(repo.name, path, repo_type=repo.kind, revision=commit, endpoint=repo.endpoint)
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            translated(repo, commit),
            get_session().stream("GET", url, headers=headers, timeout=self._silence) as response,
        ):
            hf_raise_for_status(response)
            continued = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            yield (start if response.status_code == 206 and continued else 0), response.iter_bytes()

    def _page(self, url: str) -> tuple[list[HubFile], str | None]:
        from huggingface_hub import get_session, hf_raise_for_status
        from huggingface_hub.utils import fix_hf_endpoint_in_url  # type: ignore[attr-defined]

        with translated(self.repo), self._as_a_hub():
            response = get_session().get(url, headers=self._headers, timeout=max(self._silence, _LISTING_SECONDS))
            hf_raise_for_status(response)
            entries: list[Mapping[str, Any]] = response.json()
            following = response.links.get("next", {}).get("url")
            # A mirror may pass the hub's own links on; nobody else gets the token.
            following = fix_hf_endpoint_in_url(following, self.repo.endpoint) if following else None
            if following and not following.startswith(f"{self.repo.endpoint}/"):
                raise ValueError(f"its list of files goes on at {following}")
            return [HubFile.parse(entry) for entry in entries if entry["type"] == "file"], following

    @contextmanager
    def _as_a_hub(self) -> Iterator[None]:
        """Says of a server that answers with something else that it is none."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            if isinstance(exc, OSError):  # one of the hub's own refusals
                raise
            raise self._unlike_a_hub(str(exc) or type(exc).__name__) from exc

    def _unlike_a_hub(self, why: str) -> SourceUnavailableError:
        return SourceUnavailableError(f"{self.repo.endpoint} does not answer as a hub does ({why}): check HF_ENDPOINT")


def _checked_token(token: str | None) -> str | None:
    stripped = (token or "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", stripped):
        raise ConfigurationError("HF_TOKEN holds spaces or characters that no token has: copy it again")
    return stripped or None
