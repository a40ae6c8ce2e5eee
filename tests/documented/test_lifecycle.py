"""Workflows A and B by HTTP alone, with the documented bodies and names; embedded, and with MLflow on PostgreSQL."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.testing.fake_hub import FakeHub, FakeRepo
from src.testing.fake_ollama import FakeOllama
from tests.named_hosts import resolved_in
from tests.servers import mlflow_on, new_database
from tests.service import Service, running_service, wait_until

JOB_FIELDS = {
    "id", "kind", "status", "bytes_done", "bytes_total", "bytes_per_second", "eta_seconds", "progress", "created_at",
    "finished_at", "result", "error", "error_type",
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tiny_model: Path) -> Iterator[FakeHub]:
    """A hub with the documented model, which has a second version's worth of history on a branch."""
    with FakeHub([FakeRepo.from_folder("google/gemma-2b", tiny_model)]) as server:
        yield server


@pytest.fixture(
    scope="module",
    params=[pytest.param("embedded"), pytest.param("mlflow-on-postgresql", marks=pytest.mark.slow)],
)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama, hub: FakeHub
) -> Iterator[Service]:
    """A service with a new data folder, an Ollama, a hub, and each kind of registry."""
    folder = tmp_path_factory.mktemp("workflows")
    servers = {"OLLAMA_HOST": ollama.url, "HF_ENDPOINT": hub.url}
    if request.param == "embedded":
        with running_service(folder / "data", **servers) as running:
            yield running
        return
    database = new_database(request.getfixturevalue("postgresql_uri"))
    with (
        mlflow_on(database, folder) as address,
        running_service(
            folder / "data", **servers, MLFLOW_TRACKING_URI=address, **resolved_in(folder / "names")
        ) as running,
    ):
        yield running


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def finished(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    """Polls a job as its user does."""
    states: list[dict[str, Any]] = [job]

    def ended() -> bool:
        states.append(ok(service.get(f"/jobs/{job['id']}")))
        return states[-1]["finished_at"] is not None

    wait_until(ended, 120, f"the job {job['id']} to end")
    return states[-1]


def test_workflow_a(service: Service) -> None:
    # GET /models/local?model_source=ollama
    listed = ok(service.get("/models/local", params={"model_source": "ollama"}))
    found = next(entry for entry in listed if entry["name"] == "qwen3:1.7b")
    assert isinstance(found["size"], str)
    assert isinstance(found["modified"], str)
    assert {"size_bytes", "modified_at", "digest", "family", "capabilities"} <= found.keys()

    # POST /register_ollama
    registered = ok(
        service.post(
            "/models/register_ollama",
            {
                "local_model_name": "qwen3:1.7b",
                "task": "text-generation-ollama",
                "model_params": 1.7,
                "registered_name": "qwen3:1.7b-ollama-1",
                "version_description": "…",
                "stage": "staging",
                "set_priority_to_one": False,
            },
        )
    )
    assert isinstance(registered["message"], str)
    result = registered["result"]
    assert (result["name"], result["version"], result["stage"]) == ("qwen3:1.7b-ollama-1", "1", "staging")
    expected = {
        "inference_task": "text-generation",
        "engine": "ollama",
        "ollama_model_name": "qwen3:1.7b",
        "model_params": "1.7",
    }
    assert expected.items() <= result["tags"].items()

    # POST /transition_stage
    moved = ok(
        service.post(
            "/models/transition_stage",
            {
                "model_name": "qwen3:1.7b-ollama-1",
                "version": "1",
                "stage": "production",
                "archive_existing_versions": True,
            },
        )
    )
    assert isinstance(moved["message"], str)
    assert moved["serving"] == {"production": "1"}

    # infer
    answer = ok(
        service.post(
            "/inference/infer",
            {
                "task": "text-generation-ollama",
                "engine": "ollama",
                "model_name": "qwen3:1.7b-ollama-1",
                "data": {"inputs": "請解釋什麼是深度學習"},
                "options": {"temperature": 0.7, "max_length": 500},
            },
        )
    )
    assert answer["result"]["generated_text"]
    assert answer["task"] == "text-generation-ollama"
    assert answer["provenance"]["registered_name"] == "qwen3:1.7b-ollama-1"
    assert answer["provenance"]["digest"] == found["digest"] == result["tags"]["model_digest"]


def test_workflow_b(service: Service, hub: FakeHub) -> None:
    name = f"gemma-2b-translator-{secrets.token_hex(3)}"
    # POST /download: a job
    hub.faults.cut(2000, file="model.safetensors")
    hub.faults.unavailable(times=2)
    job = ok(service.post("/models/download", {"model_source": "huggingface", "model_name": "google/gemma-2b"}))
    assert job.keys() >= JOB_FIELDS
    done = finished(service, job)
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert done["progress"] == 1.0
    listed = ok(service.get("/models/local"))
    assert [entry["name"] for entry in listed] == ["google_gemma-2b"]  # `/` became `_`
    assert (service.data_dir / "tmp/models/google_gemma-2b/config.json").is_file()

    # POST /upload_to_lakefs: has commit_id
    commit = ok(
        service.post("/models/upload_to_lakefs", {"repo_name": "gemma-models", "local_model_name": "google_gemma-2b"})
    )
    assert commit["commit_id"]
    assert [repo["name"] for repo in ok(service.get("/models/lakefs_repos"))] == ["gemma-models"]

    # POST /register_from_lakefs, without engine: like register_ollama
    body = {
        "registered_name": name,
        "task": "text-generation",
        "lakefs_repo": "gemma-models",
        "commit_id": commit["commit_id"],
    }
    registered = ok(service.post("/models/register_from_lakefs", body))
    result = registered["result"]
    assert (result["name"], result["version"], result["stage"]) == (name, "1", "none")
    expected = {"inference_task": "text-generation", "engine": "transformers", "lakefs_commit": commit["commit_id"]}
    assert expected.items() <= result["tags"].items()

    # POST /transition_stage, infer
    transition = {"model_name": name, "version": "1", "stage": "production"}
    assert isinstance(ok(service.post("/models/transition_stage", transition))["message"], str)
    answer = ok(service.infer(name, "Hello", max_new_tokens=4))
    provenance = answer["provenance"]
    assert provenance["registered_name"] == name
    assert provenance["commit"] == commit["commit_id"]
    assert provenance["digest"] == commit["digest"]
    assert provenance["source"].startswith("lakefs://gemma-models/")

    # A new version: register again (the number rises by itself), then transition
    again = ok(service.post("/models/register_from_lakefs", body))
    assert again["result"]["version"] == "2"
    assert ok(service.post("/models/transition_stage", {**transition, "version": "2"}))["serving"] == {
        "production": "2"
    }
    assert ok(service.infer(name, "Hello", max_new_tokens=4))["provenance"]["version"] == "2"


def test_batch_download_is_jobs(service: Service) -> None:
    entries = [
        {"model_source": "huggingface", "model_name": "google/gemma-2b"},
        {"model_source": "huggingface", "model_name": "nobody/nothing"},
    ]
    parent = finished(service, ok(service.post("/models/batch_download", {"downloads": entries})))

    assert parent["status"] == "succeeded"
    children = [ok(service.get(f"/jobs/{child}")) for child in parent["children"]]
    assert [child["status"] for child in children] == ["succeeded", "failed"]
    assert children[1]["error_type"] == "NotFoundError"
    assert "nobody/nothing" in children[1]["error"]


def test_registered_in_mlflow_lists_models(service: Service) -> None:
    service.post(
        "/models/register_ollama",
        {"local_model_name": "qwen3:1.7b", "task": "text-generation", "registered_name": "listed"},
    )
    assert "listed" in [model["name"] for model in ok(service.get("/models/registered_in_mlflow"))]
    detail = ok(service.get("/models/registered_in_mlflow/listed", params={"all_version": True}))
    assert [version["version"] for version in detail["versions"]] == ["1"]


def test_registered_in_mlflow_hides_archived_models_unless_asked(service: Service) -> None:
    service.post(
        "/models/register_ollama",
        {
            "local_model_name": "qwen3:1.7b",
            "task": "text-generation",
            "registered_name": "retired",
            "stage": "archived",
        },
    )
    names = {
        show_all: [m["name"] for m in ok(service.get("/models/registered_in_mlflow", params={"show_all": show_all}))]
        for show_all in (False, True)
    }
    assert "retired" not in names[False]
    assert "retired" in names[True]


def test_stats_tell_the_distribution(service: Service) -> None:
    service.post(
        "/models/register_ollama",
        {"local_model_name": "qwen3:1.7b", "task": "text-generation", "registered_name": "counted", "stage": "staging"},
    )
    stats = ok(service.get("/models/stats", params={"show_all": True}))
    assert stats["by_stage"]["staging"] >= 1
    assert stats["by_task"]["text-generation"] >= 1
    assert stats["by_engine"]["ollama"] >= 1


def test_health_tells_reachability(service: Service) -> None:
    health = ok(service.get("/models/health"))
    assert {name: health[name]["reachable"] for name in ("mlflow", "lakefs", "ollama")} == {
        "mlflow": True,
        "lakefs": True,
        "ollama": True,
    }
    assert all(health[name]["latency_ms"] >= 0 for name in ("mlflow", "lakefs", "ollama"))
