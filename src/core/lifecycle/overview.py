"""What is registered, told for people: lists, details, figures."""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.core.errors import ModelNotFoundError
from src.core.registry.names import Reference
from src.core.registry.resolution import choose
from src.core.registry.versions import ALIASED_STAGES, RegisteredModel, RegisteredVersion

JsonObject = dict[str, Any]


def version_details(version: RegisteredVersion) -> JsonObject:
    """Returns a registered version as plain values; times in seconds since 1970."""
    details = {
        "name": version.name,
        "version": version.version,
        "stage": version.stage,
        "aliases": list(version.aliases),
        "task": version.task,
        "engine": version.engine,
        "source": version.source,
        "commit": version.commit,
        "digest": version.digest,
        "tags": dict(version.tags),
        "description": version.description,
        "status": version.status,
        "created_at": version.created_at,
        "updated_at": version.updated_at,
    }
    if version.disagreement:
        details["warnings"] = [version.disagreement]
    return details


def serving(versions: Iterable[RegisteredVersion]) -> dict[str, str]:
    """Returns alias → version of those that serve a stage."""
    return {alias: version.version for version in versions for alias in version.aliases if alias in ALIASED_STAGES}


def model_summary(name: str, versions: list[RegisteredVersion]) -> JsonObject:
    """Returns a registered model: the version that its bare name stands for, and every version in short."""
    chosen = _chosen(name, versions)
    front = version_details(chosen) if chosen else {"name": name, "version": None, "stage": None, "tags": {}}
    return {
        **front,
        "serving": serving(versions),
        "versions": [
            {"version": v.version, "stage": v.stage, "aliases": list(v.aliases), "created_at": v.created_at}
            for v in versions
        ],
        "warnings": [v.disagreement for v in versions if v.disagreement],
    }


def _chosen(name: str, versions: list[RegisteredVersion]) -> RegisteredVersion | None:
    aliases = {alias: version.version for version in versions for alias in version.aliases}
    try:
        return choose(RegisteredModel.of(name, name, versions, aliases), Reference(name), name).registered
    except ModelNotFoundError:
        return None


def is_ours(version: RegisteredVersion) -> bool:
    """Whether a version can be served by this platform, because it says for what."""
    return bool(version.tags.get("inference_task") or version.engine)


def by_name(versions: Iterable[RegisteredVersion]) -> dict[str, list[RegisteredVersion]]:
    """Groups versions by the name of their model."""
    grouped: dict[str, list[RegisteredVersion]] = {}
    for version in versions:
        grouped.setdefault(version.name, []).append(version)
    return grouped


def distribution(versions: list[RegisteredVersion]) -> JsonObject:
    """Returns how versions spread over stages, tasks, engines and sources, and the bytes behind each stage."""
    sizes: Counter[str] = Counter()
    for version in versions:
        sizes[version.stage] += _size(version)
    return {
        "total_models": len({version.name for version in versions}),
        "total_versions": len(versions),
        "by_stage": dict(Counter(version.stage for version in versions)),
        "by_task": dict(Counter(version.task or "unknown" for version in versions)),
        "by_engine": dict(Counter(version.engine or "unknown" for version in versions)),
        "by_source": dict(Counter(version.tags.get("model_source", "unknown") for version in versions)),
        "size_bytes": {"total": sum(sizes.values()), "by_stage": dict(sizes)},
    }


def folder_bytes(folder: Path) -> int:
    """Returns the bytes of all files below a folder; hard links to one file count once."""
    seen: dict[int, int] = {}
    waiting = [folder]
    while waiting:
        try:
            for path in waiting.pop().iterdir():
                if path.is_symlink():
                    continue
                if path.is_dir():
                    waiting.append(path)
                else:
                    status = path.stat()
                    seen[status.st_ino] = status.st_size
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went away while it was counted
    return sum(seen.values())


def milliseconds_since(started: float) -> float:
    """Returns the milliseconds since a `time.perf_counter()` value."""
    return round((time.perf_counter() - started) * 1000, 1)


def _size(version: RegisteredVersion) -> int:
    text = version.tags.get("model_size_bytes", "")
    return int(text) if text.isdigit() else 0
