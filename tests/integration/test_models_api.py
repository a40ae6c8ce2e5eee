"""Registration over HTTP, and what is told about models: bad input gets a clear answer and leaves nothing behind."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lifecycle import FOREIGN, LLAMA, NO_TENSORS, STORES, Platform, refused, running_platform
from tests.service import CLIENT, free_port
from tests.slow_plugin import ENGINE, TASK, install

MODEL = {"config.json": LLAMA, "model.safetensors": NO_TENSORS}


@pytest.fixture(scope="module", params=STORES)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service over each kind of store, with an engine whose model is a text."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = {**install(folder / "plugin"), "AIML_WORKERS__PRELOAD": "never"}
    with running_platform(folder, store=request.param, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def commits(platform: Platform) -> dict[str, str]:
    """Commits by what they hold, all in the repository `zoo`."""
    held = {
        "model": MODEL,
        "no-model": {"README.md": b"hello"},
        "no-weights": {"config.json": LLAMA},
        "foreign": {"config.json": FOREIGN, "model.safetensors": NO_TENSORS},
    }
    return {name: platform.commit("zoo", name, files, branch=name) for name, files in held.items()}


def from_store(platform: Platform, commit_id: str, **more: Any) -> Any:
    body = {"registered_name": "zebra", "task": "text-generation", "lakefs_repo": "zoo", "commit_id": commit_id, **more}
    # As Python writes JSON, which may hold what JSON has not.
    headers = {"Content-Type": "application/json"}
    url = f"{platform.service.url}/models/register_from_lakefs"
    return CLIENT.post(url, content=json.dumps(body), headers=headers, timeout=60)


def from_ollama(platform: Platform, **more: Any) -> Any:
    body = {"local_model_name": "qwen3:1.7b", "task": "text-generation", **more}
    return platform.service.post("/models/register_ollama", body)


@pytest.mark.parametrize(
    ("held", "more", "status", "words"),
    [
        ("model", {"commit_id": "0" * 64}, 404, ["zoo", "0" * 64]),
        ("model", {"commit_id": "no-such-branch"}, 404, ["no-such-branch"]),
        ("model", {"lakefs_repo": "no-such-repo"}, 404, ["no-such-repo"]),
        ("model", {"lakefs_repo": "Not A Name"}, 400, ["cannot name a repository", "for example"]),
        ("no-model", {}, 400, ["text-generation", "transformers", "no config.json", "README.md"]),
        ("no-weights", {}, 400, ["no weights", ".safetensors"]),
        ("foreign", {}, 400, ["text-generation", "BertForSequenceClassification"]),
        ("foreign", {"engine": "transformers"}, 400, ["transformers", "BertForSequenceClassification"]),
        ("model", {"engine": "ollama"}, 400, ["ollama", "register_ollama"]),
        ("model", {"task": "text-generation-ollama"}, 400, ["ollama", "register_ollama"]),
        ("model", {"engine": "transfomers"}, 422, ["transfomers", "did you mean 'transformers'"]),
        ("model", {"task": "text-generaton"}, 422, ["text-generaton", "did you mean 'text-generation'"]),
        ("model", {"registered_name": "zebra@1"}, 400, ["'@'", "version"]),
        ("model", {"registered_name": ""}, 422, ["registered_name"]),
        ("model", {"registered_name": "  "}, 400, ["empty"]),
        ("model", {"registered_name": "a\nb"}, 400, ["control characters"]),
        ("model", {"registered_name": "../../etc"}, 400, ["'..'"]),
        ("model", {"registered_name": "z" * 300}, 400, ["too long", "256"]),
        ("model", {"stage": "prod"}, 400, ["'prod'", "production, staging, archived, none"]),
        ("model", {"model_params": 0}, 422, ["model_params", "greater than 0"]),
        ("model", {"model_params": -1.7}, 422, ["model_params", "greater than 0"]),
        ("model", {"model_params": float("inf")}, 422, ["model_params", "finite"]),
        ("model", {"model_parms": 1.7}, 422, ["model_parms"]),
        ("model", {"stage": "\ud800"}, 422, ["stage"]),
        ("model", {"version_description": "a\0b"}, 422, ["version_description", "NUL"]),
        ("model", {"version_description": "x" * 5001}, 422, ["version_description", "5000"]),
    ],
)
def test_what_cannot_be_registered_is_told_and_leaves_nothing(
    platform: Platform, commits: dict[str, str], held: str, more: dict[str, Any], status: int, words: list[str]
) -> None:
    before = platform.registered_names()

    refused(from_store(platform, **{"commit_id": commits[held], **more}), status, *words)

    assert platform.registered_names() == before


def test_a_commit_is_registered_again_as_the_next_version(platform: Platform, commits: dict[str, str]) -> None:
    body = {"registered_name": "twice", "version_description": "a try", "model_params": 0.25}
    first = from_store(platform, commits["model"], **body).json()["result"]
    second = from_store(platform, commits["model"], registered_name="twice").json()["result"]

    assert (first["version"], second["version"]) == ("1", "2")
    assert (first["description"], first["tags"]["model_params"]) == ("a try", "0.25")
    assert first["digest"] == second["digest"]


@pytest.mark.parametrize("ref", ["short", "branch"])
def test_a_short_id_and_a_branch_are_stored_as_the_full_id(
    platform: Platform, commits: dict[str, str], ref: str
) -> None:
    full = commits["model"]
    result = from_store(platform, {"short": full[:8], "branch": "model"}[ref], registered_name=ref).json()["result"]

    assert (result["commit"], result["tags"]["lakefs_commit"]) == (full, full)
    assert result["source"] == f"lakefs://zoo/{full}/"
    assert result["engine"] == "transformers"


def test_one_registered_straight_into_production_takes_over_only_if_it_can(platform: Platform) -> None:
    def register(answer: bytes, **files: bytes) -> Any:
        model = {"answer": answer, "seconds": b"0", **files}
        commit = platform.commit("texts", f"text-{answer.decode()}", model, branch=answer.decode())
        more = {"lakefs_repo": "texts", "registered_name": "teller", "task": TASK, "stage": "production"}
        return from_store(platform, commit, **more)

    def told() -> str:
        body = {"task": TASK, "engine": ENGINE, "model_name": "teller", "data": {}, "options": {}}
        return str(platform.post("/inference/infer", body)["result"]["response"])

    assert register(b"first").json()["result"]["aliases"] == ["production"]
    assert told() == "first"

    refused(register(b"second", broken=b""), 409, "cannot take over", "these weights are broken")

    detail = platform.get("/models/registered_in_mlflow/teller", all_version=True)
    assert ([version["version"] for version in detail["versions"]], detail["serving"]) == (["1"], {"production": "1"})
    assert told() == "first"
    assert register(b"third").json()["result"]["stage"] == "production"
    assert told() == "third"


def test_a_repository_that_cannot_be_made_is_told(platform: Platform, commits: dict[str, str]) -> None:
    body = {"repo_name": "Not A Name", "local_model_name": "model"}
    refused(platform.service.post("/models/upload_to_lakefs", body), 400, "cannot name a repository")


@pytest.mark.parametrize("platform", ["embedded"], indirect=True)
class TestOllama:
    """Registration of what Ollama has."""

    def test_the_name_there_is_the_name_here(self, platform: Platform) -> None:
        answer = from_ollama(platform, stage="staging").json()

        result = answer["result"]
        assert (result["name"], result["version"], result["stage"]) == ("qwen3:1.7b", "1", "staging")
        assert result["aliases"] == ["staging"]
        assert result["tags"]["model_params"] == "1.7"
        assert "qwen3:1.7b" in answer["message"]
        assert from_ollama(platform).json()["result"]["version"] == "2"

    @pytest.mark.parametrize(
        ("more", "status", "words"),
        [
            ({"local_model_name": "nobody:7b"}, 404, ["nobody:7b", "ollama pull nobody:7b"]),
            ({"local_model_name": "not a name!"}, 400, ["Ollama", "name"]),
            ({"task": "text-generaton"}, 422, ["did you mean 'text-generation'"]),
            ({"registered_name": "new@1"}, 400, ["'@'"]),
            ({"registered_name": "new", "stage": "prod"}, 400, ["production, staging, archived, none"]),
            ({"registered_name": "new", "model_params": 0}, 422, ["model_params"]),
        ],
    )
    def test_what_cannot_be_registered_is_told(
        self, platform: Platform, more: dict[str, Any], status: int, words: list[str]
    ) -> None:
        before = platform.registered_names()
        refused(from_ollama(platform, **more), status, *words)
        assert platform.registered_names() == before

    def test_an_ollama_that_is_away_is_told(self, platform: Platform) -> None:
        platform.ollama.stop()
        try:
            failure = from_ollama(platform, registered_name="unreachable")
            listing = platform.service.get("/models/local?model_source=ollama")
            health = platform.get("/models/health")
        finally:
            platform.ollama.start()

        assert refused(failure, 503, platform.ollama.url, "ollama serve")["retryable"] is True
        assert failure.headers["retry-after"]
        refused(listing, 503, "ollama serve")
        assert "unreachable" not in platform.registered_names()
        assert health["status"] == "degraded"
        assert health["ollama"]["reachable"] is False
        assert "ollama serve" in health["ollama"]["error"]
        assert platform.get("/models/health")["status"] == "healthy"

    def test_what_is_told_has_latencies_and_figures(self, platform: Platform) -> None:
        health = platform.get("/models/health")
        assert all(0 <= health[name]["latency_ms"] < 10_000 for name in ("mlflow", "lakefs", "ollama"))
        stats = platform.get("/models/stats", show_all=True)
        assert stats["total_versions"] == sum(stats["by_stage"].values())
        assert stats["storage"]["free_bytes"] > 0
        assert stats["size_bytes"]["total"] == sum(stats["size_bytes"]["by_stage"].values()) > 0


@pytest.mark.parametrize("platform", ["lakefs"], indirect=True)
def test_a_lakefs_that_is_away_is_told(platform: Platform, commits: dict[str, str]) -> None:
    assert platform.lakefs
    platform.lakefs.stop()
    try:
        failure = from_store(platform, commits["model"], registered_name="unreachable")
        health = platform.get("/models/health")
        repos = platform.service.get("/models/lakefs_repos")
    finally:
        platform.lakefs.start()

    assert refused(failure, 503, "lakeFS", platform.lakefs.url)["error_type"] == "StoreUnavailableError"
    refused(repos, 503, "lakeFS")
    assert (health["status"], health["lakefs"]["reachable"], health["lakefs"]["latency_ms"]) == (
        "degraded",
        False,
        None,
    )
    assert health["lakefs"]["error"]
    assert "unreachable" not in platform.registered_names()
    assert platform.get("/models/health")["status"] == "healthy"


def test_an_mlflow_that_is_away_is_told(tmp_path: Any) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with running_platform(tmp_path, MLFLOW_TRACKING_URI=address) as platform:
        at_first = platform.get("/models/health")
        failure = from_ollama(platform)
        health = platform.get("/models/health")
        listing = platform.service.get("/models/registered_in_mlflow")

    assert {(told["status"], told["mlflow"]["reachable"]) for told in (at_first, health)} == {("degraded", False)}
    assert at_first["mlflow"]["error"]
    assert address in health["mlflow"]["error"]
    assert (health["lakefs"]["reachable"], health["ollama"]["reachable"]) == (True, True)
    assert refused(failure, 503, address)["error_type"] == "RegistryUnavailableError"
    refused(listing, 503, address)
