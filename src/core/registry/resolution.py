"""From a model's versions and a reference to the one version that serves it."""

import difflib
from collections.abc import Iterable
from typing import Any

from src.core.errors import ModelNotFoundError
from src.core.registry.names import Reference
from src.core.registry.versions import RegisteredModel, RegisteredVersion, Resolution

_LISTED = 20


def choose(model: RegisteredModel, reference: Reference, text: str) -> Resolution:
    """Returns the version that a reference means; raises `ModelNotFoundError` that lists what there is.

    A bare name means the alias `production`, else the newest ready version that is not archived.
    """
    if reference.version is not None:
        return _checked(model, model.version(reference.version), None, text)
    if reference.alias is not None:
        return _checked(model, _by_alias(model, reference.alias), reference.alias, text)
    if (serving := model.version(model.aliases.get("production"))) is not None:
        return _checked(model, serving, "production", text)
    newest = next((v for v in model.versions if v.is_ready and v.stage != "archived"), None)
    return _checked(model, newest, None, text, _unnamed_production(model, newest))


def no_such_version(model: RegisteredModel, text: str) -> ModelNotFoundError:
    """Returns the error for a version that a registered model lacks; it lists what there is."""
    details: dict[str, Any] = {
        "versions": [{"version": v.version, "stage": v.stage, "status": v.status} for v in model.versions[:_LISTED]],
        "aliases": dict(model.aliases),
    }
    return ModelNotFoundError(f"Model '{text}' not found in MLflow: {_inventory(model)}", details=details)


def unknown_name(text: str, name: str, names: Iterable[str]) -> ModelNotFoundError:
    """Returns the error for a name that is not registered; it offers near ones."""
    near = near_names(name, names)
    hint = f"; did you mean {', '.join(repr(n) for n in near)}?" if near else ""
    return ModelNotFoundError(f"Model '{text}' not found in MLflow{hint}", details={"near": near})


def near_names(name: str, names: Iterable[str], *, count: int = 5) -> list[str]:
    """Returns registered names that look like the one asked for, the nearest first."""
    by_folded = {registered.casefold(): registered for registered in names}
    folded = name.casefold()
    near = difflib.get_close_matches(folded, by_folded, n=count, cutoff=0.6)
    near += sorted(other for other in by_folded if other not in near and (folded in other or other in folded))
    return [by_folded[other] for other in near[:count]]


def _by_alias(model: RegisteredModel, alias: str) -> RegisteredVersion | None:
    if alias.lower() == "latest":  # reserved by MLflow for the highest version
        return next((version for version in model.versions if version.is_ready), None)
    return model.version(model.aliases.get(alias))


def _checked(
    model: RegisteredModel,
    version: RegisteredVersion | None,
    alias: str | None,
    text: str,
    warning: str | None = None,
) -> Resolution:
    if version is None or not version.is_ready:
        raise no_such_version(model, text)
    archived = f"version {version.version} of '{model.name}' is archived" if version.stage == "archived" else None
    warnings = (archived, version.disagreement, warning)
    return Resolution(version, alias, tuple(text for text in warnings if text))


def _unnamed_production(model: RegisteredModel, newest: RegisteredVersion | None) -> str | None:
    tagged = next((version for version in model.versions if version.tagged_stage == "production"), None)
    if tagged is None or newest is None or tagged.version == newest.version:
        return None
    return (
        f"version {tagged.version} of '{model.name}' is tagged production, but no alias 'production' exists; "
        f"the newest version {newest.version} was taken"
    )


def _inventory(model: RegisteredModel) -> str:
    if not model.versions:
        return f"'{model.name}' is registered, but has no versions"
    listed = ", ".join(f"{v.version} ({_state(v)})" for v in model.versions[:_LISTED])
    more = f" and {len(model.versions) - _LISTED} older ones" if len(model.versions) > _LISTED else ""
    aliases = "; aliases " + ", ".join(f"{a} → {n}" for a, n in sorted(model.aliases.items())) if model.aliases else ""
    return f"'{model.name}' has version{'s' if len(model.versions) > 1 else ''} {listed}{more}{aliases}"


def _state(version: RegisteredVersion) -> str:
    return version.stage if version.is_ready else f"{version.stage}, {version.status}"
