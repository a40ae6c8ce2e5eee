"""Transfers: files from a source to the staging area, from there into the version store, and back out of it.

The same for models and for datasets; everything blocks, and `progress` may break it off.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from src.core.config import Settings
from src.core.errors import ValidationError
from src.core.registry.resolution import near_names
from src.core.sources.hub_partial import PartialFolder, holding
from src.core.sources.huggingface import HuggingFaceSource
from src.core.sources.local_models import describe
from src.core.sources.ollama import OllamaSource
from src.core.sources.staging import SourceRecord, Staged, StagingArea, local_name
from src.core.sources.upload import UploadSource
from src.core.stores.base import Commit, Progress, VersionStore

Kind = Literal["model", "dataset"]
JsonObject = dict[str, Any]

SOURCES: dict[Kind, tuple[str, ...]] = {"model": ("huggingface", "ollama"), "dataset": ("huggingface",)}


class Transfers:
    """Moves the files of models, or of datasets."""

    def __init__(self, settings: Settings, kind: Kind, store: Callable[[], VersionStore]) -> None:
        self.kind: Kind = kind
        self._settings = settings
        self._store = store
        self.staging = StagingArea(settings.data_dir / "tmp" / f"{kind}s")
        self._checkouts = settings.data_dir / f"{kind}s"

    # ------------------------------------------------------------------ sources

    def download(
        self,
        source: str,
        name: str,
        *,
        revision: str | None = None,
        allow_patterns: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> JsonObject:
        """Brings a model from Hugging Face into the staging area, or has Ollama pull it; returns what is there then.

        Broken off, a download from Hugging Face goes on where it was when it is asked for again.
        """
        if check_source(source, self.kind) == "ollama":
            return self.ollama().pull(name, progress)
        hub = HuggingFaceSource(
            self.staging,
            repo_type=self.kind,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            token=os.environ.get("HF_TOKEN") or None,
        )
        return describe(hub.download(name, revision=revision, allow_patterns=allow_patterns, progress=progress))

    def discard(self, source: str, name: str) -> None:
        """Removes what a download that nobody waits for any more has left, unless another one goes on with it."""
        if source == "huggingface":
            with suppress(_InUseError), holding(lambda: self.staging.partial(name), _leave) as partial:
                partial.remove()

    def local(self, source: str = "huggingface") -> list[JsonObject]:
        """Returns what is staged, by name; with `ollama` what that has."""
        if check_source(source, self.kind) == "ollama":
            return self.ollama().list()
        return [describe(staged) for staged in self.staging.list()]

    def accept(self, folder: Path, name: str | None) -> JsonObject:
        """Stages users' own files, once they have been looked through."""
        return describe(self.uploads().accept(folder, name))

    def ollama(self) -> OllamaSource:
        """Returns the Ollama server as a source."""
        settings = self._settings.ollama
        return OllamaSource(settings.api_base, timeout=settings.timeout, verify_ssl=settings.verify_ssl)

    def uploads(self) -> UploadSource:
        """Returns what takes in users' own files."""
        return UploadSource(self.staging, kind=self.kind, max_bytes=self._settings.max_upload_bytes)

    # ------------------------------------------------------------------ the version store

    def upload_to_store(
        self,
        repo_name: str,
        name: str,
        *,
        branch: str = "main",
        message: str = "",
        progress: Progress | None = None,
    ) -> JsonObject:
        """Commits a staged folder to a branch; returns `commit_id`, `digest` and what the commit holds.

        Creates repository and branch where they are missing; files that are there already are not sent again.
        """
        staged = self.staging.get(name)
        commit = self._store().upload(
            repo_name,
            staged.path,
            branch=branch,
            message=message or f"Import {staged.name}",
            metadata=_origin(staged),
            progress=progress,
        )
        return {**commit_details(commit), "branch": branch, "local_model_name": staged.name}

    def checkout(self, repo: str, ref: str, progress: Progress | None = None) -> tuple[Commit, Path]:
        """Puts the files of a commit, verified, below the data folder; returns the commit and the folder."""
        store = self._store()
        commit_id = ref if len(ref) == 64 else store.get_commit(repo, ref).id
        target = self.checkout_folder(commit_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        return store.checkout(repo, commit_id, target, progress=progress), target

    def checked_out(self) -> list[JsonObject]:
        """Returns the commits whose files are in place, with the folder of each."""
        found = sorted(path for path in self._checkouts.glob("*") if path.is_dir() and len(path.name) == 64)
        return [{"commit_id": path.name, "path": str(path)} for path in found]

    def checkout_folder(self, commit_id: str) -> Path:
        """Returns where the files of a commit are, or would be."""
        return self._checkouts / commit_id


class _InUseError(Exception):
    """Another download is at work on what was to be discarded."""


def _leave(partial: PartialFolder) -> None:
    raise _InUseError


def check_source(source: str, kind: Kind) -> str:
    """Returns the name of a source; raises `ValidationError` that lists those there are."""
    known = SOURCES[kind]
    if source not in known:
        near = near_names(source, known, count=1)
        hint = f": did you mean '{near[0]}'?" if near else ""
        raise ValidationError(f"There is no model_source '{source}' (there are: {', '.join(known)}){hint}")
    return source


def commit_details(commit: Commit, *, with_files: bool = True) -> JsonObject:
    """Returns a commit as plain values; sizes in bytes, times in seconds since 1970."""
    files = [{"path": file.path, "sha256": file.sha256, "size_bytes": file.size} for file in commit.files]
    return {
        "commit_id": commit.id,
        "repo_name": commit.repo,
        "message": commit.message,
        "digest": commit.digest,
        "parents": list(commit.parents),
        "created_at": commit.created_at,
        "metadata": dict(commit.metadata),
        "file_count": len(commit.files),
        "size_bytes": commit.size,
        **({"files": files} if with_files else {}),
    }


def _origin(staged: Staged) -> dict[str, str]:
    record = staged.record or SourceRecord("local", staged.name)
    origin = {"source": record.source, "source_name": record.name, "source_revision": record.revision}
    return {key: value for key, value in origin.items() if value}


__all__ = ["SOURCES", "Kind", "Transfers", "check_source", "commit_details", "local_name"]
