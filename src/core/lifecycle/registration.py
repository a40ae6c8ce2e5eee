"""Registration: a commit of the version store, or a model of Ollama's, becomes a version of a registered model."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from src.core.errors import InvalidInputError, PlatformError
from src.core.mlflow_registry import MlflowRegistry
from src.core.registry.names import check_name
from src.core.registry.stages import check_stage
from src.core.registry.versions import ALIASED_STAGES, RegisteredVersion
from src.core.sources.local_models import count_parameters
from src.core.sources.ollama import OllamaSource, parameter_billions
from src.core.stores.base import Commit, VersionStore

JsonObject = dict[str, Any]

_SMALL = 4_000_000
"""Bytes of a file up to which it is no weights: configuration, vocabulary, a template."""
_HEADER = 16_000_000
"""Bytes that are read of a weight file at most: the header of a safetensors file is smaller."""


class Judge(Protocol):
    """Says which engine can load a model's files for a task."""

    def __call__(self, files: Path, task: str, engine: str | None) -> tuple[str, str]:
        """Returns (canonical task, engine); `files` holds the small files whole and the weights' beginnings.

        Raises `InvalidInputError` that says why the files are nothing for the task or the engine,
        `ValidationError` for a task or an engine that does not exist.
        """
        ...


def trusting_judge(files: Path, task: str, engine: str | None) -> tuple[str, str]:
    """Believes the caller; for a process that serves nothing."""
    if engine is None:
        raise InvalidInputError("say which engine is to serve it: nobody here can tell")
    return task, engine


def in_stage(
    stage: str | None,
    register: Callable[..., RegisteredVersion],
    transition: Callable[[str, str, str], tuple[RegisteredVersion, Any]],
    delete: Callable[..., None],
) -> RegisteredVersion:
    """Registers a version and has it enter its stage by a transition, so that what is loaded is swapped.

    Until then it is archived, so that nobody gets it who asks by the bare name. One that cannot take over is deleted
    again, and the error says why.
    """
    wanted = check_stage(stage or "none")
    if wanted not in ALIASED_STAGES:
        return register(stage=wanted)
    version = register(stage="archived")
    try:
        return transition(version.name, version.version, wanted)[0]
    except BaseException:
        with suppress(PlatformError):
            delete(version.name, version.version, force=True)
        raise


class Registrar:
    """Registers versions."""

    def __init__(
        self,
        registry: MlflowRegistry,
        store: Callable[[], VersionStore],
        checkout_folder: Callable[[str], Path],
        judge: Judge,
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`alone` keeps garbage from being collected while a commit is looked at and registered."""
        self._alone = alone
        self._registry = registry
        self._store = store
        self._checkout_folder = checkout_folder
        self._judge = judge

    def from_store(
        self,
        name: str,
        task: str,
        repo: str,
        commit_id: str,
        *,
        engine: str | None = None,
        model_params: float | None = None,
        description: str = "",
        stage: str | None = None,
        set_priority_to_one: bool = False,
    ) -> RegisteredVersion:
        """Registers a commit, once it is known to hold a model that the task and the engine can load.

        Without `engine` the one that can is taken. `model_params` is in billions, counted where it is not given.
        """
        check_name(name)
        commit = self._store().get_commit(repo, commit_id)
        with self._sketched(commit) as files:
            canonical, able = self._judge(files, task, engine)
            if able == "ollama":
                raise InvalidInputError(
                    "Engine 'ollama' serves what Ollama has, and no commit: use register_ollama, or another engine"
                )
            params = model_params if model_params is not None else _billions(count_parameters(files))
        return self.commit(
            name,
            commit,
            {
                "inference_task": canonical,
                "engine": able,
                "model_source": commit.metadata.get("source", "lakefs"),
                "model_params": params_text(params),
            },
            description=description,
            stage=stage,
            set_priority_to_one=set_priority_to_one,
        )

    def commit(
        self,
        name: str,
        commit: Commit,
        tags: Mapping[str, str | None],
        *,
        description: str = "",
        stage: str | None = None,
        set_priority_to_one: bool = False,
    ) -> RegisteredVersion:
        """Registers a commit, if it is still there, under tags of the caller's choice."""
        with self._alone():
            self._store().get_commit(commit.repo, commit.id)
            return self._registry.register(
                name,
                source=f"lakefs://{commit.repo}/{commit.id}/",
                tags={
                    **tags,
                    "lakefs_repo": commit.repo,
                    "lakefs_commit": commit.id,
                    "model_digest": commit.digest,
                    "model_size_bytes": str(commit.size),
                    "physical_path": str(self._checkout_folder(commit.id)),
                },
                description=description,
                stage=stage,
                set_priority_to_one=set_priority_to_one,
            )

    def from_ollama(
        self,
        source: OllamaSource,
        local_name: str,
        task: str,
        *,
        name: str | None = None,
        model_params: float | None = None,
        description: str = "",
        stage: str | None = None,
        set_priority_to_one: bool = False,
    ) -> RegisteredVersion:
        """Registers a model that Ollama has, by its name there with the tag; the digest of the moment is recorded."""
        canonical = self._ollama_task(task)
        facts = source.show(local_name)
        params = model_params if model_params is not None else parameter_billions(facts)
        ollama_name = str(facts["name"])
        return self._registry.register(
            name or local_name,
            source=f"ollama://{ollama_name}" if "/" in ollama_name else f"ollama://library/{ollama_name}",
            tags={
                "inference_task": canonical,
                "engine": "ollama",
                "model_source": "ollama",
                "ollama_model_name": ollama_name,
                "model_params": params_text(params),
                "model_digest": str(facts["digest"]),
                "model_size_bytes": str(facts["size_bytes"]),
            },
            description=description,
            stage=stage,
            set_priority_to_one=set_priority_to_one,
        )

    def _ollama_task(self, task: str) -> str:
        with tempfile.TemporaryDirectory(prefix="aiml-judge-") as nothing:
            return self._judge(Path(nothing), task, "ollama")[0]

    @contextmanager
    def _sketched(self, commit: Commit) -> Iterator[Path]:
        """Puts what tells a model's kind into a folder: small files whole, of the others the beginning."""
        store = self._store()
        with tempfile.TemporaryDirectory(prefix="aiml-judge-") as folder:
            for file in commit.files:
                path = Path(folder, file.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                limit = _SMALL if file.size <= _SMALL else _HEADER if file.path.endswith(".safetensors") else 64
                path.write_bytes(store.read(commit.repo, commit.id, file.path, limit=limit))
                if file.size > limit:
                    _extend(path, file.size)
            yield Path(folder)


def params_text(billions: float | None) -> str | None:
    """Returns a parameter count as the tag has it: billions, without needless digits (`1.7`)."""
    if billions is None:
        return None
    if not 0 < billions < math.inf:
        raise InvalidInputError(f"model_params is in billions and above 0, not {billions}")
    return f"{billions:.4g}" if billions >= 0.001 else f"{billions:.7f}".rstrip("0")


def _billions(count: int | None) -> float | None:
    return count / 1e9 if count else None


def _extend(path: Path, size: int) -> None:
    """Gives a sketched file the size of the real one; the rest of it is a hole that takes no room."""
    with open(path, "r+b") as file:
        file.truncate(size)
