"""Versions, names and aliases that others wrote with MLflow's own client."""

from typing import Any

import pytest

from src.core.mlflow_registry import MlflowRegistry, RegisteredVersion
from src.core.registry.names import stored_name
from tests.unit.core.conftest import Make

SOURCE = "lakefs://repo/0123abcd/"


def add(registry: MlflowRegistry, name: str, stage: str | None = None, **tags: str) -> RegisteredVersion:
    return registry.register(name, source=SOURCE, tags=tags, stage=stage)


def plain_client(address: str) -> Any:
    """What somebody else uses: MLflow's own client."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address)


@pytest.mark.parametrize("foreign", ["plain", "50% off", "it's", "under_score%", "A'%"])
def test_a_version_that_others_registered_with_only_an_ollama_name(
    registry: MlflowRegistry, folder: Any, uri: str | None, foreign: str, name: str
) -> None:
    foreign = foreign + name[-4:]
    client = plain_client(uri or f"sqlite:///{folder / 'mlflow.db'}")
    client.create_registered_model(foreign)
    client.create_model_version(foreign, "ollama://library/llama2")
    client.set_model_version_tag(foreign, "1", "ollama_model_name", "llama2:7b")

    version = registry.resolve(foreign).registered

    assert (version.name, version.version, version.stage) == (foreign, "1", "none")
    assert (version.ollama_name, version.engine, version.task) == ("llama2:7b", "ollama", "text-generation")


def test_a_version_of_ours_has_what_others_may_read(
    registry: MlflowRegistry, folder: Any, uri: str | None, name: str
) -> None:
    add(registry, name, "production", engine="ollama")

    seen = plain_client(uri or f"sqlite:///{folder / 'mlflow.db'}").get_model_version_by_alias(
        stored_name(name), "production"
    )

    assert (str(seen.version), seen.source, seen.tags["engine"], seen.tags["stage"]) == (
        "1", SOURCE, "ollama", "production",
    )  # fmt: skip


def test_a_name_given_as_mlflow_stores_it(registry: MlflowRegistry, name: str) -> None:
    add(registry, name)

    assert registry.resolve(stored_name(name)).registered.name == name


def test_registering_a_name_that_others_stored_unescaped_adds_to_it(make_registry: Make, folder: Any) -> None:
    registry = make_registry()
    client = plain_client(f"sqlite:///{folder / 'mlflow.db'}")
    client.create_registered_model("50%")
    client.create_model_version("50%", SOURCE)

    assert add(registry, "50%").version == "2"
    assert {version.name for version in registry.list_models()} == {"50%"}


def test_an_alias_that_others_moved_wins_over_the_tag_and_is_shown(
    registry: MlflowRegistry, folder: Any, uri: str | None, name: str
) -> None:
    add(registry, name, "production")
    add(registry, name, "staging")
    client = plain_client(uri or f"sqlite:///{folder / 'mlflow.db'}")
    client.set_registered_model_alias(stored_name(name), "production", "2")

    registered = registry.versions(name)[0]
    resolution = registry.resolve(name)

    assert (registered.stage, registered.tagged_stage) == ("production", "staging")
    assert resolution.registered.version == "2"
    assert resolution.warnings == (registered.disagreement,)


def test_a_production_tag_without_the_alias_is_shown(
    registry: MlflowRegistry, folder: Any, uri: str | None, name: str
) -> None:
    add(registry, name, "production")
    add(registry, name)
    client = plain_client(uri or f"sqlite:///{folder / 'mlflow.db'}")
    client.delete_registered_model_alias(stored_name(name), "production")
    registry.versions(name)

    resolution = registry.resolve(name)

    assert resolution.registered.version == "2"
    assert "version 1" in resolution.warnings[0]
    assert "no alias 'production' exists" in resolution.warnings[0]
    assert registry.resolve(f"{name}@2").warnings == ()
