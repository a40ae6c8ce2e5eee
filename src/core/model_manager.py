"""model_manager: the lifecycle façade over the registry and the version store."""

import logging
import re
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.core.config import Settings, export_tracking_uri, load_settings
from src.core.errors import ConfigurationError, ModelNotFoundError, NotFoundError
from src.core.mlflow_registry import MlflowRegistry, RegisteredVersion, Resolution
from src.core.stores.base import Commit, VersionStore
from src.core.stores.local import LocalStore

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]


class ModelManager:
    """Registers models, resolves their names and puts their files in place for serving."""

    def __init__(self, settings: Settings | None = None) -> None:
        # Without settings it is the one of this process, which a script uses beside MLflow's own client.
        self._is_default = settings is None
        self._settings = settings
        self._lock = threading.RLock()
        self._registry: MlflowRegistry | None = None
        self._store: VersionStore | None = None

    @property
    def settings(self) -> Settings:
        """The settings, read when first needed."""
        with self._lock:
            if self._settings is None:
                self._settings = load_settings()
            return self._settings

    @property
    def registry(self) -> MlflowRegistry:
        """The registry client."""
        with self._lock:
            if self._registry is None:
                settings = self.settings
                if self._is_default:
                    export_tracking_uri(settings)
                self._registry = MlflowRegistry(
                    settings.tracking_uri,
                    snapshot_path=settings.data_dir / "registry-snapshot.json",
                    embedded=settings.registry_is_embedded,
                    ttl=settings.mlflow.cache_ttl,
                    request_timeout=settings.mlflow.request_timeout,
                )
            return self._registry

    @property
    def store(self) -> VersionStore:
        """The version store."""
        with self._lock:
            if self._store is None:
                self._store = open_store(self.settings)
            return self._store

    def lead_mlflow_here(self) -> None:
        """Points MLflow's own client at this registry although nobody used it yet."""
        with suppress(ConfigurationError):  # settings that cannot work are told by the first call
            export_tracking_uri(load_settings())

    # ------------------------------------------------------------------ documented names

    def list_models_from_mlflow(self, show_all: bool = False) -> list[JsonObject]:
        """Returns the registered models, each with its versions; `show_all` adds those that are archived."""
        return [
            {"name": name, "versions": [version_details(version) for version in versions]}
            for name, versions in _by_name(self.registry.list_models(show_all=show_all)).items()
        ]

    def register_model_to_mlflow(
        self,
        model_name: str,
        model_source: str,
        model_path: str | Path,
        tags: Mapping[str, str] | None = None,
        *,
        description: str = "",
        stage: str | None = None,
        repo_name: str | None = None,
    ) -> JsonObject:
        """Imports a model folder as a commit and registers it; returns the version's details.

        `model_source` says where it comes from (`huggingface`, `local` …). The tag `task` becomes
        `inference_task`. Raises `NotFoundError` for a missing path.
        """
        path = Path(model_path).expanduser()
        if not path.is_dir():
            raise NotFoundError(
                f"model_path '{model_path}' is not a folder; give the folder that holds the model's files"
            )
        commit = self.store.upload(
            repo_name or repo_for(model_name), path, message=f"Import {model_name} from {model_source}"
        )
        given = dict(tags or {})
        if "task" in given:
            given["inference_task"] = given.pop("task")
        version = self.register_commit(
            model_name, commit, {**given, "model_source": model_source}, description=description, stage=stage
        )
        return version_details(version)

    def get_model_details_from_mlflow(self, model_name: str) -> JsonObject:
        """Returns the version that `model_name` stands for; its `tags` hold `physical_path`, where its files are."""
        return version_details(self.registry.resolve(model_name).registered)

    # ------------------------------------------------------------------ lifecycle

    def register_commit(
        self,
        model_name: str,
        commit: Commit,
        tags: Mapping[str, str],
        *,
        description: str = "",
        stage: str | None = None,
    ) -> RegisteredVersion:
        """Registers a commit of the store as a new version, its files verified and in place."""
        path = self._checkout(commit.repo, commit.id)
        return self.registry.register(
            model_name,
            source=f"lakefs://{commit.repo}/{commit.id}/",
            tags={
                **tags,
                "lakefs_repo": commit.repo,
                "lakefs_commit": commit.id,
                "model_digest": commit.digest,
                "physical_path": str(path),
            },
            description=description,
            stage=stage,
        )

    def files(self, version: RegisteredVersion) -> Path | None:
        """Returns the folder with a version's files, checked out and verified; None where it has none here.

        Raises `ModelNotFoundError` where the store lacks the commit, `IntegrityError` where its bytes differ.
        """
        repo, commit = version.repo, version.commit
        if not repo or not commit:
            return None
        try:
            return self._checkout(repo, commit)
        except NotFoundError as exc:
            raise ModelNotFoundError(
                f"Model '{version.name}' version {version.version} is registered, but the version store lacks its "
                f"files (repository {repo}, commit {commit}): {exc}",
                details={"repo": repo, "commit": commit},
            ) from exc

    def production_versions(self) -> list[RegisteredVersion]:
        """Returns the versions that serve as `production`: as last seen where something is known, else by asking."""
        versions = self.registry.remembered() or self.registry.list_models()
        return [version for version in versions if "production" in version.aliases]

    def local_folder(self, version: RegisteredVersion) -> Path | None:
        """Returns where a version's files lie if they are checked out, without looking into them."""
        if not version.repo or not version.commit:
            return None
        path = self.settings.data_dir / "models" / version.repo / version.commit
        return path if path.is_dir() else None

    def free_bytes(self) -> int:
        """Returns the bytes free where the data folder is."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.settings.data_dir).free

    def close(self) -> None:
        """Lets the registry go."""
        with self._lock:
            if self._registry is not None:
                self._registry.close()
                self._registry = None

    def forked(self) -> None:
        """Forgets the registry's connections, which belong to the parent of this process."""
        self._lock = threading.RLock()
        self._registry = None

    def _checkout(self, repo: str, commit: str) -> Path:
        target = self.settings.data_dir / "models" / repo / commit
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store.checkout(repo, commit, target)
        return target


def open_store(settings: Settings) -> VersionStore:
    """Returns the version store that the settings name."""
    if settings.lakefs.endpoint:
        raise ConfigurationError(
            f"lakefs.endpoint is set to {settings.lakefs.endpoint}, but this version serves from its embedded store "
            "only: unset LAKEFS_ENDPOINT"
        )
    return LocalStore(settings.data_dir / "store")


def repo_for(model_name: str) -> str:
    """Returns a repository name made from a model's: lower case, other characters as `-`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", model_name.lower()).strip("-._")
    return (name or "model").ljust(2, "0")[:60]


def version_details(version: RegisteredVersion) -> JsonObject:
    """Returns a registered version as plain values; times in seconds since 1970."""
    return {
        "name": version.name,
        "version": version.version,
        "stage": version.stage,
        "aliases": list(version.aliases),
        "source": version.source,
        "tags": dict(version.tags),
        "description": version.description,
        "created_at": version.created_at,
        "updated_at": version.updated_at,
    }


def _by_name(versions: list[RegisteredVersion]) -> dict[str, list[RegisteredVersion]]:
    grouped: dict[str, list[RegisteredVersion]] = {}
    for version in versions:
        grouped.setdefault(version.name, []).append(version)
    return grouped


__all__ = ["ModelManager", "Resolution", "model_manager", "open_store", "repo_for", "version_details"]

model_manager = ModelManager()
