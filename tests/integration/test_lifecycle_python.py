"""The Python door beside a running service: the same work in the caller, without a job, and the service sees it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from src.core.errors import ConflictError, EngineUnavailableError, InvalidInputError, ModelNotFoundError, NotFoundError
from src.core.model_manager import ModelManager
from src.testing.fake_hub import FakeRepo
from tests.integration.conftest import manager_of
from tests.lifecycle import LLAMA, NO_TENSORS, Platform, lakefs_settings, ok, running_platform
from tests.service import ROOT, environment, wait_until

SIZE = 2_000_000
SOON = 30.0

# What docs/lifecycle.md shows, word for word but for the names.
DOCUMENTED = """
import json
from src.core.model_manager import model_manager

model_manager.download("huggingface", "org/model")
commit = model_manager.upload_to_lakefs("documented", "org_model")
version = model_manager.register_from_lakefs(
    "documented", "text-generation", "documented", commit["commit_id"], engine="transformers"
)
model_manager.transition_stage("documented", version["version"], "production")
print(json.dumps({"commit": commit, "version": version}))
"""


@pytest.fixture(scope="module", params=["embedded", pytest.param("lakefs", marks=pytest.mark.slow)])
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service over each kind of store."""
    model = FakeRepo("org/model", {"config.json": LLAMA, "model.safetensors": NO_TENSORS})
    large = FakeRepo("org/large", {"config.json": LLAMA, "weights.bin": bytes(SIZE)})
    folder = tmp_path_factory.mktemp(request.param)
    with running_platform(folder, store=request.param, repos=[model, large]) as running:
        yield running


@pytest.fixture(scope="module")
def models(platform: Platform) -> Iterator[ModelManager]:
    """The Python door over the data folder of the service, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in servers(platform).items():
            patch.setenv(name, value)
        manager = manager_of(platform.service.data_dir)
        yield manager
        manager.close()


def servers(platform: Platform) -> dict[str, str]:
    return {"HF_ENDPOINT": platform.hub.url, "OLLAMA_HOST": platform.ollama.url, **lakefs_settings(platform.lakefs)}


def registered(models: ModelManager, name: str, **more: Any) -> dict[str, Any]:
    return models.register_ollama("qwen3:1.7b", "text-generation", name=name, **more)


def test_what_is_documented_works_in_a_script_and_the_service_has_it(platform: Platform) -> None:
    jobs = platform.get("/jobs")
    variables = environment(platform.service.data_dir, **servers(platform))
    command = [sys.executable, "-c", DOCUMENTED]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)

    assert platform.get("/jobs") == jobs
    assert "org_model" in platform.staged_names()
    log = platform.get("/models/lakefs_repos/documented/commits")
    assert log[0]["commit_id"] == said["commit"]["commit_id"]
    told = platform.get("/models/registered_in_mlflow/documented")
    assert (told["version"], told["stage"], told["commit"]) == ("1", "production", said["commit"]["commit_id"])
    assert told["tags"]["model_source"] == said["version"]["tags"]["model_source"] == "huggingface"


def test_both_doors_tell_the_same(platform: Platform, models: ModelManager) -> None:
    registered(models, "same", stage="production")
    registered(models, "same", stage="staging", description="next")

    assert models.registered(show_all=True) == platform.get("/models/registered_in_mlflow", show_all=True)
    told = platform.get("/models/registered_in_mlflow/same", all_version=True)
    assert models.registered_model("same", all_versions=True) == told
    assert told["serving"] == {"production": "1", "staging": "2"}
    assert models.list_local("ollama")[0].keys() == platform.get("/models/local", model_source="ollama")[0].keys()
    stats, over_http = models.get_stats(show_all=True), platform.get("/models/stats", show_all=True)
    assert {key: stats[key] for key in stats if key != "storage"} == {
        key: over_http[key] for key in over_http if key != "storage"
    }
    assert models.health_check()["status"] == platform.get("/models/health")["status"] == "healthy"


def test_a_transition_here_is_served_there(platform: Platform, models: ModelManager) -> None:
    registered(models, "moved", stage="production")
    registered(models, "moved")

    def serving() -> str:
        answer = ok(platform.service.infer("moved", "Hello", engine="ollama", max_new_tokens=2))
        return str(answer["provenance"]["version"])

    assert serving() == "1"
    version, swap = models.transition_stage("moved", "2", "production", archive_existing_versions=True)
    assert (version.stage, swap.loaded) == ("production", [])
    wait_until(lambda: serving() == "2", SOON, "the service to see the transition")
    with pytest.raises(ConflictError, match="in production"):
        models.delete_version("moved", "2")
    models.delete_version("moved", "1")
    told = platform.get("/models/registered_in_mlflow/moved", all_version=True)
    assert [entry["version"] for entry in told["versions"]] == ["2"]


def test_a_transition_there_is_seen_here(platform: Platform, models: ModelManager) -> None:
    registered(models, "returned", stage="production")
    registered(models, "returned")
    platform.post("/models/transition_stage", {"model_name": "returned", "version": "2", "stage": "production"})

    def version() -> Any:
        return models.get_model_details_from_mlflow("returned")["version"]

    wait_until(lambda: version() == "2", SOON, "the Python door to see the transition")


def test_errors_are_those_of_http(platform: Platform, models: ModelManager) -> None:
    with pytest.raises(NotFoundError, match="'ghost'"):
        models.upload_to_lakefs("repo", "ghost")
    with pytest.raises(NotFoundError, match="org/nobody"):
        models.download("huggingface", "org/nobody")
    with pytest.raises(NotFoundError, match="nowhere"):
        models.register_from_lakefs("x", "text-generation", "nowhere", "main", engine="transformers")
    with pytest.raises(ModelNotFoundError, match="nobody:7b"):
        models.register_ollama("nobody:7b", "text-generation")
    with pytest.raises(InvalidInputError, match="production, staging, archived, none"):
        registered(models, "bad-stage", stage="prod")
    with pytest.raises(InvalidInputError, match="billions"):
        registered(models, "bad-params", model_params=-1.0)
    with pytest.raises(ModelNotFoundError, match="@9"):
        models.transition_stage("documented", "9", "production")
    platform.ollama.stop()
    try:
        with pytest.raises(EngineUnavailableError, match="ollama serve"):
            registered(models, "unreachable")
    finally:
        platform.ollama.start()
    assert {"x", "nobody:7b", "bad-stage", "bad-params", "unreachable"}.isdisjoint(platform.registered_names())


def test_nobody_here_can_tell_the_engine(platform: Platform, models: ModelManager) -> None:
    commit = platform.commit("judged", "judged", {"config.json": LLAMA, "model.safetensors": NO_TENSORS})
    with pytest.raises(InvalidInputError, match="engine"):
        models.register_from_lakefs("judged", "text-generation", "judged", commit)
    with pytest.raises(InvalidInputError, match="register_ollama"):
        models.register_from_lakefs("judged", "text-generation", "judged", commit, engine="ollama")
    assert "judged" not in platform.registered_names()


def test_one_download_at_both_doors_is_fetched_once(platform: Platform, models: ModelManager) -> None:
    before = platform.hub.bytes_sent("weights.bin")
    platform.hub.faults.slow(SIZE / 2)
    try:
        job = platform.post("/models/download", {"model_name": "org/large"})
        wait_until(lambda: platform.get(f"/jobs/{job['id']}")["bytes_done"] > 0, SOON, "the service to fetch")
        described = models.download("huggingface", "org/large")
    finally:
        platform.hub.faults.slow(None)

    assert described["name"] == "org_large"
    assert platform.finished(job["id"])["status"] == "succeeded"
    assert platform.hub.bytes_sent("weights.bin") - before == SIZE
    assert platform.litter() == []


def test_uploads_at_both_doors_make_one_history(platform: Platform, models: ModelManager) -> None:
    for name in ("left", "right"):
        platform.stage(name, {f"{name}.txt": b"1" * 100_000})
    answers: list[Any] = []
    body = {"repo_name": "shared", "local_model_name": "left"}
    other = threading.Thread(target=lambda: answers.append(platform.post("/models/upload_to_lakefs", body)))
    other.start()
    mine = models.upload_to_lakefs("shared", "right")
    other.join()

    log = [entry for entry in platform.get("/models/lakefs_repos/shared/commits") if entry["file_count"]]
    assert {entry["commit_id"] for entry in log} == {mine["commit_id"], answers[0]["commit_id"]}
    assert all(entry["file_count"] == 1 for entry in log)


def test_what_progress_raises_breaks_the_work_off_and_a_second_try_goes_on(
    platform: Platform, models: ModelManager
) -> None:
    if "org_large" in platform.staged_names():
        platform.delete("/models/local/org_large")
    seen: list[tuple[int, int]] = []

    def impatient(done: int, total: int) -> None:
        seen.append((done, total))
        if done > SIZE / 2:
            raise TimeoutError("long enough")

    before = platform.hub.bytes_sent("weights.bin")
    platform.hub.faults.slow(SIZE)
    try:
        with pytest.raises(TimeoutError, match="long enough"):
            models.download("huggingface", "org/large", progress=impatient)
    finally:
        platform.hub.faults.slow(None)
    assert "org_large" not in platform.staged_names()
    assert models.download("huggingface", "org/large")["size_bytes"] == seen[-1][1]
    assert platform.hub.bytes_sent("weights.bin") - before < 1.5 * SIZE
