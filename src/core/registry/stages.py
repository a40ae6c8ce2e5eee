"""Stages: which tags and aliases a transition changes. Pure rules; somebody else carries them out.

Several versions may be tagged with a stage. The alias `production` names the one of them that serves,
`staging` likewise; a version that enters a stage takes its alias, and one that leaves passes it on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from src.core.errors import InvalidInputError
from src.core.registry.resolution import no_such_version
from src.core.registry.versions import ALIASED_STAGES, STAGES, RegisteredModel, RegisteredVersion


class ChangeTarget(Protocol):
    """Where changes are carried out; a value or version of None removes."""

    def set_tag(self, stored: str, version: str, key: str, value: str | None) -> None: ...

    def set_alias(self, stored: str, alias: str, version: str | None) -> None: ...


@dataclass(frozen=True, slots=True)
class TagChange:
    """Sets a version's tag, or removes it where the value is None."""

    version: str
    key: str
    value: str | None

    def carry_out(self, target: ChangeTarget, stored: str) -> None:
        """Makes the change."""
        target.set_tag(stored, self.version, self.key, self.value)

    def inverse(self, model: RegisteredModel) -> "TagChange":
        """Returns the change that restores what `model` has."""
        version = model.version(self.version)
        return replace(self, value=version.tags.get(self.key) if version else None)


@dataclass(frozen=True, slots=True)
class AliasChange:
    """Points an alias at a version, or removes it where the version is None."""

    alias: str
    version: str | None

    def carry_out(self, target: ChangeTarget, stored: str) -> None:
        """Makes the change."""
        target.set_alias(stored, self.alias, self.version)

    def inverse(self, model: RegisteredModel) -> "AliasChange":
        """Returns the change that restores what `model` has."""
        return replace(self, version=model.aliases.get(self.alias))


Change = TagChange | AliasChange


def check_stage(stage: str) -> str:
    """Returns a stage in lower case; raises `InvalidInputError` for one that does not exist."""
    folded = stage.strip().lower()
    if folded not in STAGES:
        raise InvalidInputError(f"Stage '{stage}' does not exist; the stages are {', '.join(STAGES)}")
    return folded


def transition(
    model: RegisteredModel, number: str, stage: str, *, now: float, archive_others: bool = False
) -> list[Change]:
    """Returns the changes that move a version to a stage, in an order that is safe to break off.

    Who enters is tagged before the alias switches to it; who leaves keeps its tag until the alias has gone.
    """
    version = _existing(model, number)
    tags = _staged(version, stage, _stamp(model, now))
    if stage not in ALIASED_STAGES:
        return [*_departure(model, version, keeps=stage), *tags]
    others = [v for v in model.versions if archive_others and v.stage == stage and v != version]
    archived = [change for other in others for change in _staged(other, "archived", _stamp(model, now))]
    return [*tags, AliasChange(stage, number), *archived, *_departure(model, version, keeps=stage)]


def enrolment_tags(model: RegisteredModel, stage: str, *, now: float, first: bool) -> dict[str, str]:
    """Returns the tags with which a new version of a model is created; `first` gives it the priority."""
    tags = {"stage": stage, "stage_changed_at": _stamp(model, now)}
    return {**tags, "inference_priority": "1"} if first else tags


def enrolment(model: RegisteredModel, number: str, stage: str, *, first: bool) -> list[Change]:
    """Returns the changes that put a version just created, with its tags, in its place among the others."""
    takes = [AliasChange(stage, number)] if stage in ALIASED_STAGES else []
    return [*takes, *(_priority_of_others(model, number) if first else [])]


def departure(model: RegisteredModel, number: str) -> list[Change]:
    """Returns the changes that pass a version's aliases on before it is deleted."""
    return _departure(model, _existing(model, number), keeps=None)


def apply(model: RegisteredModel, changes: Sequence[Change]) -> RegisteredModel:
    """Returns the model as it is after the changes."""
    tags = {version.version: dict(version.tags) for version in model.versions}
    aliases = dict(model.aliases)
    for change in changes:
        if isinstance(change, TagChange):
            _put(tags[change.version], change.key, change.value)
        else:
            _put(aliases, change.alias, change.version)
    versions = [replace(version, tags=tags[version.version]) for version in model.versions]
    return RegisteredModel.of(model.name, model.stored, versions, aliases)


def differences(present: RegisteredModel, wanted: RegisteredModel) -> list[Change]:
    """Returns the changes of stage tags and aliases that make `present` what `wanted` is."""
    changes: list[Change] = []
    for version in present.versions:
        if (other := wanted.version(version.version)) is not None:
            keys = [key for key in ("stage", "stage_changed_at") if version.tags.get(key) != other.tags.get(key)]
            changes += [TagChange(version.version, key, other.tags.get(key)) for key in keys]
    aliases = [alias for alias in ALIASED_STAGES if present.aliases.get(alias) != wanted.aliases.get(alias)]
    return [*changes, *(AliasChange(alias, wanted.aliases.get(alias)) for alias in aliases)]


def successor(model: RegisteredModel, stage: str, leaving: RegisteredVersion) -> RegisteredVersion | None:
    """Returns who takes a stage's alias when its holder leaves.

    It is the version of that stage with `inference_priority` 1, else the one moved there last; None
    where nobody is left.
    """
    remaining = [v for v in model.versions if v.is_ready and v.stage == stage and v.version != leaving.version]
    return max(remaining, key=lambda v: (v.has_priority, v.stage_changed_at, v.number), default=None)


def _priority_of_others(model: RegisteredModel, number: str) -> list[Change]:
    holders = [version for version in model.versions if version.has_priority and version.version != number]
    return [TagChange(holder.version, "inference_priority", None) for holder in holders]


def _departure(model: RegisteredModel, version: RegisteredVersion, keeps: str | None) -> list[Change]:
    changes: list[Change] = []
    for alias in ALIASED_STAGES:
        if alias in version.aliases and alias != keeps:
            heir = successor(model, alias, version)
            changes.append(AliasChange(alias, heir.version if heir else None))
    return changes


def _staged(version: RegisteredVersion, stage: str, stamp: str) -> list[Change]:
    return [TagChange(version.version, "stage", stage), TagChange(version.version, "stage_changed_at", stamp)]


def _stamp(model: RegisteredModel, now: float) -> str:
    """Returns a time after every recorded one, even where the clock was set back."""
    latest = max((version.stage_changed_at for version in model.versions), default=0.0)
    return f"{max(now, latest + 1e-5):.6f}"


def _existing(model: RegisteredModel, number: str) -> RegisteredVersion:
    version = model.version(number)
    if version is None:
        raise no_such_version(model, f"{model.name}@{number}")
    return version


def _put(values: dict[str, str], key: str, value: str | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
