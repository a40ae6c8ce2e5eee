"""Registering, resolving and changing versions: one suite for sqlite, an MLflow server and PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from src.core.errors import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    RegistryUnavailableError,
)
from src.core.mlflow_registry import MlflowRegistry, RegisteredVersion
from tests.unit.core.conftest import Make

SOURCE = "lakefs://repo/0123abcd/"


def add(registry: MlflowRegistry, name: str, stage: str | None = None, **tags: str) -> RegisteredVersion:
    return registry.register(name, source=SOURCE, tags=tags, stage=stage)


# ---------------------------------------------------------------------- registering


def test_a_registered_version_has_everything_and_comes_back_the_same(registry: MlflowRegistry, name: str) -> None:
    version = registry.register(
        name,
        source=SOURCE,
        tags={"inference_task": "ocr", "engine": "transformers", "model_digest": "sha256:1"},
        description="reads documents",
        stage="staging",
    )

    assert (version.name, version.version, version.source, version.status) == (name, "1", SOURCE, "READY")
    assert (version.stage, version.aliases, version.description) == ("staging", ("staging",), "reads documents")
    assert (version.task, version.engine, version.digest) == ("ocr", "transformers", "sha256:1")
    assert (version.repo, version.commit, version.ollama_name) == ("repo", "0123abcd", None)
    assert 1_500_000_000 < version.created_at <= version.updated_at < 10_000_000_000
    assert registry.get_version(name, "1") == version
    assert registry.versions(name) == [version]
    assert registry.resolve(name).registered == version


def test_numbers_rise_by_themselves(registry: MlflowRegistry, name: str) -> None:
    assert [add(registry, name).version for _ in range(3)] == ["1", "2", "3"]
    assert [version.version for version in registry.versions(name)] == ["3", "2", "1"]


@pytest.mark.parametrize("stage", ["production", None])
def test_a_stage_may_be_given_as_a_tag(registry: MlflowRegistry, name: str, stage: str | None) -> None:
    version = registry.register(name, source=SOURCE, tags={"stage": "Staging"}, stage=stage)

    assert version.stage == (stage or "staging")
    assert version.disagreement is None


def test_a_tag_of_none_counts_as_unset(make_registry: Make) -> None:
    version = make_registry().register("m", source=SOURCE, tags={"model_params": None, "engine": "ollama"})

    assert dict(version.tags).keys() == {"engine", "stage", "stage_changed_at"}


def test_priority_is_taken_from_the_others(registry: MlflowRegistry, name: str) -> None:
    for _ in range(2):
        registry.register(name, source=SOURCE, tags={}, set_priority_to_one=True)

    assert [version.has_priority for version in registry.versions(name)] == [True, False]


@pytest.mark.parametrize(
    ("name", "source", "stage"), [("a@b", SOURCE, None), ("", SOURCE, None), ("a", " ", None), ("a", SOURCE, "prod")]
)
def test_what_cannot_be_registered_leaves_nothing(
    make_registry: Make, name: str, source: str, stage: str | None
) -> None:
    registry = make_registry()

    with pytest.raises(InvalidInputError):
        registry.register(name, source=source, tags={}, stage=stage)

    assert registry.list_models(show_all=True) == []


def test_a_source_that_mlflow_refuses_leaves_no_model(registry: MlflowRegistry, name: str, uri: str | None) -> None:
    over_http = uri is not None and uri.startswith("http")

    with pytest.raises(InvalidInputError if over_http else RegistryUnavailableError):
        registry.register(name, source="/etc/passwd" if over_http else "models:/nothing/1", tags={})

    registry._connection._barred_until = 0.0
    with pytest.raises(ModelNotFoundError):
        registry.versions(name)


def test_registering_at_once_from_many_threads_gives_every_version_a_number(
    registry: MlflowRegistry, name: str
) -> None:
    with ThreadPoolExecutor(24) as threads:
        numbers = [version.version for version in threads.map(lambda _: add(registry, name), range(24))]

    assert sorted(map(int, numbers)) == list(range(1, 25))


def test_two_processes_register_the_same_new_name(make_registry: Make, name: str) -> None:
    registries = [make_registry(), make_registry()]
    barrier = threading.Barrier(2)

    def register(registry: MlflowRegistry) -> str:
        barrier.wait()
        return add(registry, name).version

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(register, registries)) == ["1", "2"]


# ---------------------------------------------------------------------- resolving


def test_a_bare_name_means_the_alias_production(registry: MlflowRegistry, name: str) -> None:
    for stage in ("none", "production", "none"):
        add(registry, name, stage)

    resolution = registry.resolve(name)

    assert (resolution.registered.version, resolution.alias, resolution.warnings) == ("2", "production", ())


def test_a_bare_name_without_production_means_the_newest_that_is_not_archived(
    registry: MlflowRegistry, name: str
) -> None:
    for stage in ("none", "staging", "archived"):
        add(registry, name, stage)

    resolution = registry.resolve(name)

    assert (resolution.registered.version, resolution.alias, resolution.warnings) == ("2", None, ())


def test_a_name_at_an_alias_or_a_version(registry: MlflowRegistry, name: str) -> None:
    for stage in ("production", "staging", "archived"):
        add(registry, name, stage)

    assert registry.resolve(f"{name}@staging").registered.version == "2"
    assert registry.resolve(f"{name}@staging").alias == "staging"
    assert registry.resolve(f"{name}@2").alias is None
    assert registry.resolve(f"{name}@latest").registered.version == "3"
    assert registry.resolve(f"{name}@3").warnings == (f"version 3 of '{name}' is archived",)


def test_a_name_of_which_everything_is_archived(registry: MlflowRegistry, name: str) -> None:
    add(registry, name, "archived")

    with pytest.raises(ModelNotFoundError) as caught:
        registry.resolve(name)

    assert str(caught.value) == f"Model '{name}' not found in MLflow: '{name}' has version 1 (archived)"
    assert caught.value.details["versions"] == [{"version": "1", "stage": "archived", "status": "READY"}]


@pytest.mark.parametrize("selector", ["@2", "@champion", "@99999999999999999999"])
def test_an_alias_or_version_that_does_not_exist(registry: MlflowRegistry, name: str, selector: str) -> None:
    add(registry, name, "production")

    with pytest.raises(ModelNotFoundError) as caught:
        registry.resolve(name + selector)

    assert str(caught.value).startswith(f"Model '{name}{selector}' not found in MLflow: ")
    assert "version 1 (production); aliases production → 1" in str(caught.value)
    assert caught.value.details["aliases"] == {"production": "1"}


def test_an_unknown_name_offers_near_ones(registry: MlflowRegistry, name: str) -> None:
    add(registry, name)

    with pytest.raises(ModelNotFoundError) as caught:
        registry.resolve(name[:-2])

    assert str(caught.value).startswith(f"Model '{name[:-2]}' not found in MLflow; did you mean '{name}'")
    assert name in caught.value.details["near"]


def test_a_name_that_is_found_after_it_was_missed(make_registry: Make, name: str) -> None:
    reader, writer = make_registry(), make_registry()
    with pytest.raises(ModelNotFoundError):
        reader.resolve(name)

    add(writer, name)

    _eventually(lambda: reader.resolve(name).registered.version == "1")


# ---------------------------------------------------------------------- changes


def test_stages_on_a_real_registry(registry: MlflowRegistry, name: str) -> None:
    for stage in ("production", "production", "staging"):
        add(registry, name, stage)

    moved = registry.set_stage(name, "3", "production", archive_existing_versions=True)

    assert (moved.stage, moved.aliases) == ("production", ("production",))
    assert [version.stage for version in registry.versions(name)] == ["production", "archived", "archived"]
    assert registry.set_stage(name, "3", "archived").aliases == ()
    with pytest.raises(ModelNotFoundError):
        registry.resolve(name)
    assert registry.resolve(f"{name}@2").warnings


def test_one_s_own_change_is_seen_at_once(registry: MlflowRegistry, name: str) -> None:
    add(registry, name, "production")
    add(registry, name)
    assert registry.resolve(name).registered.version == "1"

    registry.set_stage(name, "2", "production")

    assert registry.cached(name) == registry.resolve(name)
    assert registry.resolve(name).registered.version == "2"


@pytest.mark.parametrize("number", ["2", "x"])
def test_a_stage_for_a_version_that_does_not_exist(registry: MlflowRegistry, name: str, number: str) -> None:
    add(registry, name)

    with pytest.raises(ModelNotFoundError, match="has version 1 "):
        registry.set_stage(name, number, "production")
    with pytest.raises(ModelNotFoundError, match=r"^Model 'nothing-like-it' not found in MLflow"):
        registry.set_stage("nothing-like-it", "1", "production")


def test_tags_are_set_and_removed(registry: MlflowRegistry, name: str) -> None:
    add(registry, name)

    assert registry.set_tag(name, "1", "physical_path", "/data/m").tags["physical_path"] == "/data/m"
    assert "physical_path" not in registry.set_tag(name, "1", "physical_path", None).tags


@pytest.mark.parametrize("key", ["stage", "stage_changed_at"])
def test_a_stage_is_not_set_as_a_tag(registry: MlflowRegistry, name: str, key: str) -> None:
    add(registry, name)

    with pytest.raises(InvalidInputError, match="another stage"):
        registry.set_tag(name, "1", key, "production")


def test_a_version_that_serves_is_not_deleted_unless_forced(registry: MlflowRegistry, name: str) -> None:
    for _ in range(2):
        add(registry, name, "production")

    with pytest.raises(ConflictError, match="production"):
        registry.delete_version(name, "2")
    registry.delete_version(name, "2", force=True)

    assert registry.resolve(name).registered.version == "1"
    assert registry.resolve(name).alias == "production"


def test_the_number_of_a_deleted_version_is_never_given_again(registry: MlflowRegistry, name: str) -> None:
    add(registry, name)
    registry.delete_version(name, "1")

    with pytest.raises(ModelNotFoundError, match="has no versions"):
        registry.resolve(name)
    assert add(registry, name).version == "2"


def test_the_list_leaves_archived_versions_out_unless_asked(registry: MlflowRegistry, name: str) -> None:
    add(registry, name, "archived")
    add(registry, name)
    add(registry, f"{name}-b", "production")

    def listed(show_all: bool) -> list[tuple[str, str]]:
        return [(v.name, v.version) for v in registry.list_models(show_all=show_all) if v.name.startswith(name)]

    assert listed(False) == [(name, "2"), (f"{name}-b", "1")]
    assert listed(True) == [(name, "2"), (name, "1"), (f"{name}-b", "1")]
    assert [v.aliases for v in registry.list_models() if v.name == f"{name}-b"] == [("production",)]


def test_a_name_with_many_versions_is_read_whole(registry: MlflowRegistry, name: str, monkeypatch: Any) -> None:
    from src.core.registry import backend

    monkeypatch.setattr(backend, "_PAGE", 2)
    for _ in range(5):
        add(registry, name)

    assert len(registry.versions(name)) == 5
    assert len([v for v in registry.list_models() if v.name == name]) == 5


def _eventually(condition: Any, seconds: float = 3.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except ModelNotFoundError:
            pass
        if time.monotonic() > deadline:
            pytest.fail("it did not come true")
        time.sleep(0.05)
