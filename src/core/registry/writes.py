"""The registry's changes, each whole or undone: registration, stages, tags, deletion."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from src.core.errors import ConflictError, InvalidInputError, PlatformError
from src.core.registry.names import stored_candidates, stored_name
from src.core.registry.resolution import no_such_version, unknown_name
from src.core.registry.stages import Change, apply, departure, differences, enrolment, enrolment_tags, transition
from src.core.registry.versions import ALIASED_STAGES, RegisteredModel, RegisteredVersion

if TYPE_CHECKING:
    from src.core.registry.backend import MlflowBackend

STAGE_TAGS = ("stage", "stage_changed_at")


def find(backend: "MlflowBackend", name: str) -> RegisteredModel | None:
    """Returns the model of a documented name, whether it is stored escaped or as others wrote it."""
    for stored in stored_candidates(name):
        if (model := backend.read(stored)) is not None:
            return model
    return None


def found(backend: "MlflowBackend", name: str, number: str) -> tuple[RegisteredModel, RegisteredVersion]:
    """Returns a model and one of its versions; raises `ModelNotFoundError`."""
    model = find(backend, name)
    if model is None:
        raise unknown_name(name, name, backend.names())
    version = model.version(number)
    if version is None:
        raise no_such_version(model, f"{name}@{number}")
    return model, version


def register(
    backend: "MlflowBackend",
    name: str,
    *,
    source: str,
    tags: Mapping[str, str],
    description: str,
    stage: str,
    first: bool,
) -> tuple[RegisteredModel, str]:
    """Registers a new version; returns its model and its number. A failure leaves neither version nor empty model.

    `stage` is `none` for none; `first` gives it `inference_priority` 1.
    """
    before = find(backend, name)
    model = before or RegisteredModel.of(name, stored_name(name), [], {})
    created = backend.create_model(model.stored) if before is None else False
    version: RegisteredVersion | None = None
    try:
        staged = enrolment_tags(model, stage, now=time.time(), first=first)
        version = backend.create_version(model.stored, source, {**tags, **staged}, description)
        model = RegisteredModel.of(name, model.stored, [*model.versions, version], model.aliases)
        changes = enrolment(model, version.version, stage, first=first)
        return carry_out(backend, model, changes), version.version
    except BaseException:
        with suppress(PlatformError):
            _take_back(backend, model.stored, version, created)
        raise


def move(backend: "MlflowBackend", name: str, number: str, stage: str, *, archive_others: bool) -> RegisteredModel:
    """Moves a version to a stage and returns its model."""
    model, _ = found(backend, name, number)
    return carry_out(backend, model, transition(model, number, stage, now=time.time(), archive_others=archive_others))


def tag(backend: "MlflowBackend", name: str, number: str, key: str, value: str | None) -> RegisteredModel:
    """Sets or removes one tag and returns the version's model."""
    if key in STAGE_TAGS:
        raise InvalidInputError(f"Tag '{key}' belongs to stages: move the version to another stage instead")
    model, _ = found(backend, name, number)
    backend.set_tag(model.stored, number, key, value)
    return model


def delete(backend: "MlflowBackend", name: str, number: str, *, force: bool) -> RegisteredModel:
    """Deletes a version and returns its model; one that serves or may serve is refused unless `force`.

    The model stays, also without versions: created anew, it would count from 1 and give old numbers to new bytes.
    """
    model, version = found(backend, name, number)
    if version.stage in ALIASED_STAGES and not force:
        raise ConflictError(
            f"Version {number} of '{model.name}' is in {version.stage}: archive it first, or delete it with force",
            details={"stage": version.stage},
        )
    model = carry_out(backend, model, departure(model, number))
    backend.delete_version(model.stored, number)
    return model


def restore(backend: "MlflowBackend", model: RegisteredModel) -> RegisteredModel:
    """Puts stages and aliases back to what `model` says; returns it as it is then, without versions that have gone."""
    present = backend.read(model.stored)
    if present is None:
        raise unknown_name(model.name, model.name, backend.names())
    return carry_out(backend, present, differences(present, model))


def carry_out(backend: "MlflowBackend", model: RegisteredModel, changes: Sequence[Change]) -> RegisteredModel:
    """Makes the changes in order and returns the model after them; where one fails, those before it are undone."""
    done: list[Change] = []
    try:
        for change in changes:
            done.append(change)
            change.carry_out(backend, model.stored)
    except BaseException:
        for change in reversed(done):
            with suppress(PlatformError):
                change.inverse(model).carry_out(backend, model.stored)
        raise
    return apply(model, changes)


def _take_back(backend: "MlflowBackend", stored: str, version: RegisteredVersion | None, created: bool) -> None:
    if version is not None:
        backend.delete_version(stored, version.version)
    if created and (model := backend.read(stored)) is not None and not model.versions:
        backend.delete_model(stored)
