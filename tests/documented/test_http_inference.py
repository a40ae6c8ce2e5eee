"""HTTP: inference, to the letter, asked of a service that runs with the documented settings files."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.core.config import load_settings
from src.testing.fake_ollama import FakeOllama
from tests.documented.documents import ENGINES_CONFIG, ENV
from tests.service import Service, running_service

BODY = {
    "task": "text-generation", "engine": "ollama", "model_name": "llama2-7b", "data": {"inputs": "Hello"},
}  # fmt: skip
ON_TRANSFORMERS = BODY | {"engine": "transformers", "model_name": "model"}
NOBODY = BODY | {"model_name": "nobody"}


@pytest.fixture(scope="module")
def service(data_dir: Path, ollama: FakeOllama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, with engines_config.yaml and .env exactly as documented."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "engines_config.yaml").write_text(ENGINES_CONFIG)
    (folder / ".env").write_text(ENV)
    files = {"AIML_ENGINES_CONFIG": str(folder / "engines_config.yaml"), "AIML_ENV_FILE": str(folder / ".env")}
    with running_service(data_dir, OLLAMA_HOST=ollama.url, **files) as running:
        yield running


def infer(service: Service, body: Any, **options: Any) -> Any:
    """Returns the body of the answer."""
    return service.post("/inference/infer", {**body, **({"options": options} if options else {})}).json()


@pytest.mark.parametrize("body", [BODY, ON_TRANSFORMERS], ids=["ollama", "transformers"])
def test_success(service: Service, body: dict[str, Any]) -> None:
    """`{"success": true, "result": {"generated_text": "…", "metadata": {"model": …, "tokens": 150, …}}, …}`."""
    answer = infer(service, body, max_new_tokens=4)
    assert answer["success"] is True
    assert kinds(answer["result"]) == {"generated_text": str, "metadata": dict}
    assert (
        kinds(answer["result"]["metadata"]).items()
        >= {"model": str, "tokens": int, "finish_reason": str}.items()
    )  # fmt: skip
    assert {name: answer[name] for name in ("task", "engine", "model_name")}.items() <= body.items()
    assert (type(answer["processing_time"]), type(answer["timestamp"])) == (float, float)


def test_failure(service: Service) -> None:
    """`{"success": false, "error": "…", "error_type": "ModelNotFoundError", "task": …, "timestamp": …}`."""
    answer = infer(service, NOBODY)
    assert answer["success"] is False
    assert answer["error_type"] == "ModelNotFoundError"
    assert {name: answer[name] for name in ("task", "engine", "model_name")}.items() <= NOBODY.items()
    assert (type(answer["error"]), type(answer["timestamp"])) == (str, float)
    assert answer["error"]


def test_options_may_be_left_out(service: Service) -> None:
    """`{"task": str, "engine": str, "model_name": str, "data": object, "options"?: object}`."""
    assert infer(service, BODY)["success"] is True


@pytest.mark.parametrize("field", ["task", "engine", "model_name", "data"])
def test_every_other_field_is_needed(service: Service, field: str) -> None:
    """`{"task": str, "engine": str, "model_name": str, "data": object, "options"?: object}`."""
    answer = infer(service, {name: value for name, value in BODY.items() if name != field})
    assert answer["success"] is False
    assert f"'{field}'" in answer["error"]


@pytest.mark.parametrize("body", [BODY, NOBODY], ids=["success", "failure"])
def test_times_are_in_seconds(service: Service, body: dict[str, Any]) -> None:
    """`processing_time` seconds; `timestamp` seconds since 1970, with fraction."""
    before = time.time()
    answer = infer(service, body)
    after = time.time()
    assert before <= answer["timestamp"] <= after
    assert answer["timestamp"] % 1 != 0
    assert 0 < answer.get("processing_time", 1e-9) <= after - before


@pytest.mark.parametrize("body", [BODY, ON_TRANSFORMERS], ids=["ollama", "transformers"])
def test_tokens_are_generated_tokens(service: Service, body: dict[str, Any]) -> None:
    """`tokens` generated tokens."""
    metadata = infer(service, body, max_new_tokens=7, min_length=12)["result"]["metadata"]
    assert (metadata["tokens"], metadata["finish_reason"]) == (7, "length")


def test_several_sequences(service: Service) -> None:
    """Several sequences asked for: `generated_text` is the first, `generated_texts` all."""
    result = infer(service, ON_TRANSFORMERS, num_return_sequences=3, max_new_tokens=4)["result"]
    assert len(result["generated_texts"]) == 3
    assert result["generated_texts"][0] == result["generated_text"]


def test_several_sequences_on_ollama(service: Service) -> None:
    """Several sequences asked for: `generated_text` is the first, `generated_texts` all."""
    result = infer(service, BODY, num_return_sequences=3, max_new_tokens=4, seed=1)["result"]
    assert len(set(result["generated_texts"])) == 3
    assert result["generated_texts"][0] == result["generated_text"]
    assert result["metadata"]["tokens"] == 12


def test_health(service: Service) -> None:
    """`{"status": "healthy", "components": {"manager": true, "router": true, "cache": true}, "timestamp": float}`."""
    health = service.get("/inference/health").json()
    assert health["status"] == "healthy"
    assert health["components"].items() >= {"manager": True, "router": True, "cache": True}.items()
    assert isinstance(health["timestamp"], float)
    assert abs(health["timestamp"] - time.time()) < 60


def test_stats(service: Service) -> None:
    """`{"total_inferences": int, …, "success_rate": 0..1, "cache_hit_rate": 0..1, "cached_models": int, …}`."""
    infer(service, BODY)
    stats = service.get("/inference/stats").json()
    counts = ("total_inferences", "successful_inferences", "failed_inferences", "cached_models")
    assert {name: type(stats[name]) for name in counts} == dict.fromkeys(counts, int)
    assert stats["total_inferences"] == stats["successful_inferences"] + stats["failed_inferences"]
    assert stats["success_rate"] == stats["successful_inferences"] / stats["total_inferences"]
    assert 0 <= stats["cache_hit_rate"] <= 1


def test_uptime_is_in_seconds(service: Service) -> None:
    """`"uptime": seconds`."""
    first = service.get("/inference/stats").json()["uptime"]
    time.sleep(0.2)
    assert 0.2 <= service.get("/inference/stats").json()["uptime"] - first < 10


def test_stats_tell_every_registered_task_handler(service: Service) -> None:
    """… and every registered task handler."""
    assert service.get("/inference/stats").json()["tasks"]["text-generation"]["handlers"] == {
        "default": "TextGenerationHandler"
    }


def test_cache_clear(service: Service) -> None:
    """`POST /inference/cache/clear` `{"success": true, "message": str, "cleared_models": int}`."""
    infer(service, ON_TRANSFORMERS, max_new_tokens=1)
    answer = service.post("/inference/cache/clear").json()
    assert kinds(answer) == {"success": bool, "message": str, "cleared_models": int}
    assert (answer["success"], answer["cleared_models"]) == (True, 1)
    assert service.get("/inference/stats").json()["cached_models"] == 0


@pytest.mark.parametrize("engine", ["ollama", "transformers"])
def test_text_generation_on_both_engines(service: Service, engine: str) -> None:
    """Engines by task: text-generation on ollama and transformers."""
    assert engine in service.get("/inference/stats").json()["tasks"]["text-generation"]["engines"]


def test_text_generation_ollama_is_accepted_for_engine_ollama(service: Service) -> None:
    """`text-generation-ollama` is accepted for engine ollama."""
    answer = infer(service, BODY | {"task": "text-generation-ollama"})
    assert (answer["success"], answer["task"]) == (True, "text-generation-ollama")


def test_workflow_a_ends_in_an_inference(service: Service, ollama: FakeOllama) -> None:
    """Infer with `"task": "text-generation-ollama", …, "options": {"temperature": 0.7, "max_length": 500}`."""
    body = {"task": "text-generation-ollama", "engine": "ollama", "model_name": "qwen3:1.7b-ollama-1"}
    answer = infer(service, {**body, "data": {"inputs": "workflow A"}}, temperature=0.7, max_length=500)
    assert answer["success"] is True
    assert answer["result"]["metadata"]["model"] == "qwen3:1.7b"
    sent = next(r.body for r in ollama.requests if isinstance(r.body, dict) and r.body.get("prompt") == "workflow A")
    assert sent["options"].items() >= {"temperature": 0.7, "num_predict": 500}.items()


def test_port_8009_swagger_at_docs(service: Service) -> None:
    """HTTP: inference (port 8009, Swagger at /docs)."""
    assert load_settings().port == 8009
    page = service.get("/docs")
    assert page.status_code == 200
    assert "swagger" in page.text.lower()


def kinds(value: dict[str, Any]) -> dict[str, type]:
    """Returns the type of each field."""
    return {name: type(field) for name, field in value.items()}
