"""Stages over HTTP: who serves, who inherits, who may be deleted, and what others do with MLflow's own client."""

import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.lifecycle import Platform, ok, refused, running_platform
from tests.service import wait_until

SEEN_SECONDS = 60.0  # the cache's are five


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service of this file's own."""
    with running_platform(tmp_path_factory.mktemp("stages")) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name of the test's own."""
    return str(request.node.name.partition("[")[0]).removeprefix("test_")[:60]


@pytest.fixture(scope="module")
def mlflow_client(platform: Platform) -> Any:
    """MLflow's own client over the registry of the running service."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mlflow\b")
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{platform.service.data_dir / 'mlflow.db'}")


def register(platform: Platform, name: str, stage: str | None = None, *, priority: bool = False) -> str:
    """Registers the next version; returns its number."""
    body = {
        "local_model_name": "qwen3:1.7b",
        "task": "text-generation",
        "registered_name": name,
        "stage": stage,
        "set_priority_to_one": priority,
    }
    return str(platform.post("/models/register_ollama", body)["result"]["version"])


def move(platform: Platform, name: str, version: Any, stage: str, **more: Any) -> dict[str, str]:
    """Moves a version; returns which version serves each stage."""
    body = {"model_name": name, "version": version, "stage": stage, **more}
    serving: dict[str, str] = platform.post("/models/transition_stage", body)["serving"]
    return serving


def stages(platform: Platform, name: str) -> dict[str, str]:
    """Returns the stage of each version."""
    told = platform.get(f"/models/registered_in_mlflow/{name}", all_version=True)
    return {entry["version"]: entry["stage"] for entry in told["versions"]}


def served(platform: Platform, model: str) -> str:
    """Returns the version that answers an inference request."""
    answer = ok(platform.service.infer(model, "Hello", engine="ollama", max_new_tokens=2))
    return str(answer["provenance"]["version"])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"version": "9"}, 404, ["@9", "1 (none)"]),
        ({"version": "one"}, 404, ["@one"]),
        ({"stage": "prod"}, 400, ["'prod'", "production, staging, archived, none"]),
        ({"model_name": "moved_badl"}, 404, ["did you mean 'moved_badly'"]),
        ({"model_name": "moved_badly@1"}, 400, ["'@'"]),
        ({"version": None}, 422, ["version"]),
        ({"archive_existing": True}, 422, ["archive_existing"]),
    ],
)
def test_a_transition_that_cannot_be_is_told(
    platform: Platform, body: dict[str, Any], status: int, words: list[str]
) -> None:
    if "moved_badly" not in platform.registered_names():
        register(platform, "moved_badly")
    given = {"model_name": "moved_badly", "version": "1", "stage": "production", **body}

    refused(platform.service.post("/models/transition_stage", given), status, *words)

    assert stages(platform, "moved_badly") == {"1": "none"}


def test_who_enters_serves_and_who_leaves_passes_it_on(platform: Platform, name: str) -> None:
    for _ in range(3):
        register(platform, name)
    assert move(platform, name, 1, "production") == {"production": "1"}  # a number is a version, too
    assert move(platform, name, "2", "Production") == {"production": "2"}
    assert stages(platform, name) == {"3": "none", "2": "production", "1": "production"}
    assert served(platform, name) == "2"

    assert move(platform, name, "2", "none") == {"production": "1"}
    assert served(platform, name) == "1"

    assert move(platform, name, "3", "production", archive_existing_versions=True) == {"production": "3"}
    assert stages(platform, name) == {"3": "production", "2": "none", "1": "archived"}
    assert served(platform, f"{name}@1") == "1"


def test_the_one_with_priority_is_the_heir_not_the_last_one_moved(platform: Platform, name: str) -> None:
    for _ in range(2):
        register(platform, name, "production")
    assert register(platform, name, "production", priority=True) == "3"
    move(platform, name, "3", "none")
    for version in ("3", "1", "2"):
        serving = move(platform, name, version, "production")
    assert serving == {"production": "2"}

    assert move(platform, name, "2", "archived") == {"production": "3"}
    assert move(platform, name, "3", "archived") == {"production": "1"}


def test_staging_is_asked_for_by_its_alias(platform: Platform, name: str) -> None:
    register(platform, name, "production")
    register(platform, name, "staging")

    assert (served(platform, name), served(platform, f"{name}@staging")) == ("1", "2")
    move(platform, name, "2", "archived")
    failure = platform.service.infer(f"{name}@staging", "Hello", engine="ollama")
    refused(failure, 404, "@staging", "2 (archived)")


def test_one_that_serves_is_deleted_only_by_force_and_passes_the_alias_on(platform: Platform, name: str) -> None:
    for stage in ("production", "production", "staging"):
        register(platform, name, stage)
    path = f"/models/registered_in_mlflow/{name}"

    refused(platform.delete(f"{path}/2"), 409, "in production", "force")
    refused(platform.delete(f"{path}/1"), 409, "in production", "force")
    refused(platform.delete(f"{path}/3"), 409, "in staging", "force")
    assert set(stages(platform, name)) == {"1", "2", "3"}

    assert "version 2" in ok(platform.delete(f"{path}/2?force=true"))["message"]
    assert platform.get(path)["version"] == "1"
    assert served(platform, name) == "1"
    refused(platform.delete(f"{path}/2"), 404, "@2")
    refused(platform.delete("/models/registered_in_mlflow/nobody/1"), 404, "nobody")


def test_the_number_of_a_deleted_version_is_not_given_again(platform: Platform, name: str) -> None:
    register(platform, name)
    ok(platform.delete(f"/models/registered_in_mlflow/{name}/1"))

    refused(platform.service.get(f"/models/registered_in_mlflow/{name}"), 404, "no versions")
    assert register(platform, name) == "2"


@pytest.mark.parametrize("written", ["plain", "escaped"])
@pytest.mark.parametrize("name", ["qwen3:1.7b-ollama-1", "org/team/qwen3:4b", "50% off", "a/1", "模型 一"])
def test_names_with_colons_and_slashes_go_through_every_path(platform: Platform, name: str, written: str) -> None:
    version = register(platform, name, "staging")
    path = f"/models/registered_in_mlflow/{quote(name, safe='/:' if written == 'plain' else '')}"

    assert move(platform, name, version, "production")["production"] == version
    assert platform.get(path)["name"] == name
    assert platform.get(f"{path}@{version}")["version"] == version
    assert platform.get(path, all_version=True)["serving"] == {"production": version}
    assert name in platform.registered_names()
    assert served(platform, name) == version
    refused(platform.delete(f"{path}/{version}"), 409, name)
    ok(platform.delete(f"{path}/{version}?force=true"))


def test_what_others_register_appears_only_with_show_all(platform: Platform, mlflow_client: Any, name: str) -> None:
    mlflow_client.create_registered_model(name)
    mlflow_client.create_model_version(name, "s3://bucket/model")
    ours = [model["name"] for model in platform.get("/models/registered_in_mlflow")]
    before = platform.get("/models/stats")["total_models"]

    assert name not in ours
    assert name in platform.registered_names()
    assert platform.get("/models/stats", show_all=True)["total_models"] > before
    assert platform.get(f"/models/registered_in_mlflow/{name}")["source"] == "s3://bucket/model"


def test_what_others_change_is_seen_and_a_disagreement_is_told(
    platform: Platform, mlflow_client: Any, name: str
) -> None:
    for stage in ("production", "none"):
        register(platform, name, stage)
    assert served(platform, name) == "1"

    mlflow_client.set_registered_model_alias(name, "production", "2")

    listed = next(model for model in platform.get("/models/registered_in_mlflow") if model["name"] == name)
    assert (listed["version"], listed["stage"], listed["serving"]) == ("2", "production", {"production": "2"})
    assert "tagged none" in listed["warnings"][0]
    assert "the alias counts" in listed["warnings"][0]
    path = f"/models/registered_in_mlflow/{name}"
    wait_until(lambda: platform.get(path)["version"] == "2", SEEN_SECONDS, "the change to be seen")
    assert platform.get(path)["warnings"] == listed["warnings"]
    wait_until(lambda: served(platform, name) == "2", SEEN_SECONDS, "the change to be served")
    answer = ok(platform.service.infer(name, "Hello", engine="ollama", max_new_tokens=2))
    assert any("the alias counts" in warning for warning in answer["warnings"])

    mlflow_client.delete_registered_model(name)
    wait_until(lambda: platform.service.get(path).status_code == 404, SEEN_SECONDS, "the deletion to be seen")
    refused(platform.service.infer(name, "Hello", engine="ollama"), 404, name)
