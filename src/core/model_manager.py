"""model_manager: the lifecycle façade over sources, version store and registry.

Everything here blocks and does its work in the caller; the service does the long parts as jobs.
"""

import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from src.core.config import Settings, export_tracking_uri, load_settings
from src.core.errors import ConfigurationError, ConflictError, ModelNotFoundError, NotFoundError, PlatformError
from src.core.file_lock import file_locked
from src.core.lifecycle import overview
from src.core.lifecycle.overview import version_details
from src.core.lifecycle.registration import Judge, Registrar, in_stage, trusting_judge
from src.core.lifecycle.storage import open_store, repo_for
from src.core.lifecycle.transfers import Transfers
from src.core.mlflow_registry import MlflowRegistry, RegisteredVersion, Resolution
from src.core.stores.base import Commit, Garbage, Progress, VersionStore
from src.core.transition import HotSwap, SwapReport, replacements, without_models

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]

_GARBAGE_AGE = 24 * 3600.0
_PATIENCE = 60.0


class ModelManager:
    """Brings models in, registers them, moves them through stages and puts their files in place for serving."""

    def __init__(self, settings: Settings | None = None) -> None:
        # Without settings it is the one of this process, which a script uses beside MLflow's own client.
        self._is_default = settings is None
        self._settings = settings
        self._lock = threading.RLock()
        self._registry: MlflowRegistry | None = None
        self._store: VersionStore | None = None
        self._hot_swap: HotSwap = without_models
        self._judge: Judge = trusting_judge

    def serve_through(self, *, hot_swap: HotSwap, judge: Judge) -> None:
        """Takes what this layer cannot know: how loaded versions are swapped, and which engine can load what."""
        self._hot_swap, self._judge = hot_swap, judge

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
        if (made := self._registry) is not None:
            return made  # every request asks
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

    @property
    def models(self) -> Transfers:
        """The files of models: sources, staging area, store."""
        return Transfers(self.settings, "model", lambda: self.store)

    @property
    def datasets(self) -> Transfers:
        """The files of datasets."""
        return Transfers(self.settings, "dataset", lambda: self.store)

    @property
    def registrar(self) -> Registrar:
        """What registers versions."""
        return Registrar(
            self.registry, lambda: self.store, self.models.checkout_folder, self._judge, self._nothing_collected
        )

    def lead_mlflow_here(self) -> None:
        """Points MLflow's own client at this registry although nobody used it yet."""
        with suppress(ConfigurationError):  # settings that cannot work are told by the first call
            export_tracking_uri(load_settings())

    # ------------------------------------------------------------------ documented names

    def list_models_from_mlflow(self, show_all: bool = False) -> list[JsonObject]:
        """Returns the registered models, each with its versions; `show_all` adds those that are archived."""
        return [
            {"name": name, "versions": [version_details(version) for version in versions]}
            for name, versions in overview.by_name(self.registry.list_models(show_all=show_all)).items()
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

    # ------------------------------------------------------------------ sources and the version store

    def download(
        self,
        model_source: str,
        model_name: str,
        *,
        revision: str | None = None,
        allow_patterns: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> JsonObject:
        """Downloads a model into the staging area (`huggingface`), or has Ollama pull it; returns what is there."""
        return self.models.download(
            model_source, model_name, revision=revision, allow_patterns=allow_patterns, progress=progress
        )

    def list_local(self, model_source: str = "huggingface") -> list[JsonObject]:
        """Returns the staged models, or what Ollama has."""
        return self.models.local(model_source)

    def upload_to_lakefs(
        self,
        repo_name: str,
        local_model_name: str,
        *,
        branch: str = "main",
        message: str = "",
        progress: Progress | None = None,
    ) -> JsonObject:
        """Commits a staged model to the version store; the answer has `commit_id` and `digest`."""
        return self.models.upload_to_store(
            repo_name, local_model_name, branch=branch, message=message, progress=progress
        )

    # ------------------------------------------------------------------ registration and stages

    def register_from_lakefs(
        self,
        registered_name: str,
        task: str,
        lakefs_repo: str,
        commit_id: str,
        *,
        stage: str | None = None,
        **more: Any,
    ) -> JsonObject:
        """Registers a commit for a task; see `Registrar.from_store` for what else can be said. Returns the version.

        With a `stage` it enters that as by `transition_stage`; one that cannot is not registered.
        """
        register = partial(self.registrar.from_store, registered_name, task, lakefs_repo, commit_id, **more)
        return version_details(in_stage(stage, register, self.transition_stage, self.delete_version))

    def register_ollama(self, local_model_name: str, task: str, *, stage: str | None = None, **more: Any) -> JsonObject:
        """Registers a model that Ollama has; see `Registrar.from_ollama`. Returns the version."""
        register = partial(self.registrar.from_ollama, self.models.ollama(), local_model_name, task, **more)
        return version_details(in_stage(stage, register, self.transition_stage, self.delete_version))

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
        self._checkout(commit.repo, commit.id)
        return self.registrar.commit(model_name, commit, tags, description=description, stage=stage)

    def transition_stage(
        self,
        model_name: str,
        version: str,
        stage: str,
        *,
        archive_existing_versions: bool = False,
        allow_downtime: bool = False,
    ) -> tuple[RegisteredVersion, SwapReport]:
        """Moves a version to a stage; where that changes what serves a loaded model, the next one is loaded first.

        Raises `TransitionRefusedError` where the next version cannot serve, and `InsufficientMemoryError` where
        both do not fit; nothing is changed then. With `allow_downtime` the old one is unloaded first instead.
        """
        registry = self.registry
        before, after = registry.preview(
            model_name, version, stage, archive_existing_versions=archive_existing_versions
        )
        return self._hot_swap(
            replacements(before, after),
            lambda: registry.set_stage(model_name, version, stage, archive_existing_versions=archive_existing_versions),
            partial(registry.restore_stages, before),
            allow_downtime=allow_downtime,
        )

    def delete_version(self, model_name: str, version: str, *, force: bool = False) -> None:
        """Deletes a registered version; one in production or staging only with `force`. Its commit stays."""
        self.registry.delete_version(model_name, version, force)

    # ------------------------------------------------------------------ what there is

    def registered(self, *, show_all: bool = False) -> list[JsonObject]:
        """Returns each registered model; `show_all` adds those with archived versions only and those of others."""
        models = overview.by_name(self.registry.list_models(show_all=show_all))
        return [
            overview.model_summary(name, versions)
            for name, versions in models.items()
            if show_all or any(overview.is_ours(version) for version in versions)
        ]

    def registered_model(self, model_name: str, *, all_versions: bool = False) -> JsonObject:
        """Returns the version that serves a name (or the one that `name@…` stands for), or all of its versions."""
        if not all_versions:
            resolution = self.registry.resolve(model_name)
            details = version_details(resolution.registered)
            return {**details, "warnings": list(resolution.warnings)} if resolution.warnings else details
        versions = self.registry.versions(model_name.partition("@")[0])
        return {
            "name": versions[0].name if versions else model_name,
            "serving": overview.serving(versions),
            "versions": [version_details(version) for version in versions],
        }

    def get_stats(self, *, show_all: bool = False) -> JsonObject:
        """Returns how registered versions spread over stages, tasks and engines, and what is stored where."""
        data = self.settings.data_dir
        versions = self.registry.list_models(show_all=show_all)
        return {
            **overview.distribution([v for v in versions if show_all or overview.is_ours(v)]),
            "storage": {
                "store": self.store.kind,
                "staged_bytes": overview.folder_bytes(data / "tmp"),
                "checked_out_bytes": overview.folder_bytes(data / "models") + overview.folder_bytes(data / "datasets"),
                "store_bytes": overview.folder_bytes(data / "store") if self.store.kind == "local" else None,
                "free_bytes": self.free_bytes(),
            },
        }

    def health_check(self) -> JsonObject:
        """Asks MLflow, the version store and Ollama whether they answer; latencies in milliseconds."""
        settings = self.settings
        registry = self.registry.health()
        found = {
            "mlflow": {
                "configured": not settings.registry_is_embedded,
                "reachable": bool(registry["reachable"]),
                "latency_ms": registry["latency_ms"],
                "error": None if registry["reachable"] else registry["reason"] or "it is being opened",
            },
            "lakefs": {"configured": bool(settings.lakefs.endpoint), **_answers(self._ping_store)},
            "ollama": {"configured": settings.ollama.configured, **_answers(self.models.ollama().ping)},
        }
        degraded = [name for name, entry in found.items() if not entry["reachable"]]
        if not settings.ollama.configured:  # nobody said that there is one
            degraded = [name for name in degraded if name != "ollama"]
        return {"status": "degraded" if degraded else "healthy", **found, "timestamp": time.time()}

    def collect_garbage(self, *, older_than: float = _GARBAGE_AGE) -> Garbage:
        """Removes from the store what no branch and no registered version reaches; checkouts stay.

        Raises `RegistryUnavailableError` where the registry cannot say what is registered.
        """
        with self._nothing_collected():
            keep = {(v.repo, v.commit) for v in self.registry.list_models(show_all=True) if v.repo and v.commit}
            return self.store.collect_garbage(keep, older_than=older_than)

    # ------------------------------------------------------------------ serving

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
        path = self.models.checkout_folder(version.commit)
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

    @contextmanager
    def _nothing_collected(self) -> Iterator[None]:
        """Keeps garbage collection and the registration of commits apart, in whatever process."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            with file_locked(self.settings.data_dir / "registration.lock", timeout=_PATIENCE):
                yield
        except TimeoutError as exc:
            raise ConflictError("the version store's garbage is being collected: register again in a moment") from exc

    def _checkout(self, repo: str, commit: str) -> Path:
        return self.models.checkout(repo, commit)[1]

    def _ping_store(self) -> None:
        self.store.ping()


def _answers(ping: Any) -> JsonObject:
    started = time.perf_counter()
    try:
        ping()
    except PlatformError as exc:
        return {"reachable": False, "latency_ms": None, "error": exc.message}
    return {"reachable": True, "latency_ms": overview.milliseconds_since(started), "error": None}


__all__ = ["ModelManager", "Resolution", "model_manager", "open_store", "repo_for", "version_details"]

model_manager = ModelManager()
