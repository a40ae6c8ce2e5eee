"""The HTTP surface of inference, as documented, asked of a running service."""

import json
import time
from typing import Any

import httpx
import pytest

from tests.service import Service, wait_until

ENVELOPE = {"success", "task", "engine", "model_name", "timestamp", "request_id"}
COUNT_ON = {"max_new_tokens": 8000, "min_length": 8000}
"""Options that keep the tiny model busy for seconds."""


def test_success_has_the_documented_fields(service: Service) -> None:
    response = service.infer(max_new_tokens=16)
    body = response.json()
    assert response.status_code == 200
    assert body["success"] is True
    assert ENVELOPE | {"result", "processing_time", "provenance"} <= body.keys()
    assert body["result"]["generated_text"].strip() == "72"
    assert body["result"]["metadata"].keys() >= {"model", "tokens", "finish_reason"}
    assert abs(body["timestamp"] - time.time()) < 60
    assert 0 < body["processing_time"] < 60


def test_failure_has_the_documented_fields(service: Service) -> None:
    response = service.infer(model="no-such-model")
    body = response.json()
    assert response.status_code == 404
    assert body["success"] is False
    assert ENVELOPE | {"error", "error_type", "retryable"} <= body.keys()
    assert body["error_type"] == "ModelNotFoundError"
    assert body["error"].startswith("Model 'no-such-model' not found in MLflow")
    assert (body["task"], body["engine"], body["model_name"]) == ("text-generation", "transformers", "no-such-model")


def test_messages_are_taken(service: Service) -> None:
    body = service.infer(inputs=[{"role": "user", "content": "What is 27 plus 45?"}], max_new_tokens=16).json()
    assert body["result"]["generated_text"].strip() == "72"


def test_several_sequences(service: Service) -> None:
    result = service.infer("tiny", max_new_tokens=8, num_return_sequences=3, seed=1).json()["result"]
    assert len(result["generated_texts"]) == 3
    assert result["generated_texts"][0] == result["generated_text"]


def test_the_same_seed_gives_the_same_answer(service: Service) -> None:
    texts = [
        service.infer("tiny", max_new_tokens=24, seed=seed).json()["result"]["generated_text"] for seed in (5, 5, 6)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_task_alias_is_echoed_as_asked(service: Service) -> None:
    response = service.infer("qwen3:1.7b-ollama-1", engine="ollama", task="text-generation-ollama", temperature=0.7)
    assert response.status_code == 200, response.text
    assert response.json()["task"] == "text-generation-ollama"


@pytest.mark.parametrize(
    ("change", "status", "error_type", "words"),
    [
        ({"task": None}, 422, "ValidationError", "'task' must be a text"),
        ({"data": "text"}, 422, "ValidationError", "'data' must be an object"),
        ({"option": {}}, 422, "ValidationError", "unknown field 'option'"),
        ({"options": {"temprature": 0.5}}, 422, "ValidationError", "did you mean 'temperature'"),
        ({"options": {"temperature": 3}}, 422, "ValidationError", "temperature"),
        ({"options": {"num_predict": 3}}, 422, "ValidationError", "unknown option 'num_predict'"),
        ({"options": {"device": "cuda:7"}}, 400, "ValueError", "device"),
        ({"options": {"max_length": 2}}, 400, "ValueError", "max_new_tokens"),
        ({"task": "text-generatoin"}, 422, "ValidationError", "did you mean 'text-generation'"),
        ({"engine": "transfromers"}, 422, "ValidationError", "did you mean 'transformers'"),
        ({"data": {}}, 400, "ValueError", "Invalid input format: missing field 'inputs'"),
        ({"data": {"inputs": 5}}, 400, "ValueError", "Invalid input format"),
        ({"data": {"inputs": ""}}, 400, "ValueError", "empty"),
        ({"engine": "ollama"}, 400, "ValueError", "registered for engine 'transformers'"),
        ({"model_name": "tiny@9"}, 404, "ModelNotFoundError", "1"),
        ({"model_name": "tiny@staging"}, 404, "ModelNotFoundError", "staging"),
    ],
)
def test_bad_requests_say_what_to_do(
    service: Service, change: dict[str, Any], status: int, error_type: str, words: str
) -> None:
    body = {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": "tiny",
        "data": {"inputs": "Hi"},
        **change,
    }
    response = service.post("/inference/infer", body)
    answer = response.json()
    assert (response.status_code, answer["error_type"]) == (status, error_type), answer
    assert words in answer["error"]
    assert answer["retryable"] is False


def test_options_without_effect_are_listed_as_warnings(service: Service) -> None:
    body = service.infer("tiny", max_new_tokens=4, language="zh", trust_remote_code=True).json()
    assert any("language" in warning for warning in body["warnings"])
    assert any("trust_remote_code" in warning for warning in body["warnings"])


def test_timeout_stops_the_generation(service: Service) -> None:
    service.infer("tiny", max_new_tokens=1)
    response = service.infer("tiny", timeout=0.3, **COUNT_ON)
    assert response.status_code == 504
    assert response.json()["error_type"] == "InferenceTimeoutError"
    wait_until(lambda: _in_flight(service, "tiny") == 0, 5, "the worker to be idle")
    started = time.monotonic()
    assert service.infer("tiny", max_new_tokens=1).status_code == 200
    assert time.monotonic() - started < 2


def test_a_closed_connection_stops_the_generation(service: Service) -> None:
    service.infer("tiny", max_new_tokens=1)
    body = {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": "tiny",
        "data": {"inputs": "Hi"},
        "options": COUNT_ON,
    }
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(service.url + "/inference/infer", json=body, timeout=0.3)
    wait_until(lambda: _in_flight(service, "tiny") == 0, 5, "the worker to be idle")
    started = time.monotonic()
    assert service.infer("tiny", max_new_tokens=1).status_code == 200
    assert time.monotonic() - started < 2


def test_health_is_healthy(service: Service) -> None:
    body = service.get("/inference/health").json()
    assert body["status"] == "healthy"
    assert all(body["components"].values())
    assert body["components"].keys() >= {"manager", "router", "cache"}
    assert body["dependencies"].keys() >= {"mlflow", "lakefs", "ollama"}


def test_stats_have_the_documented_fields(service: Service) -> None:
    before = service.get("/inference/stats").json()
    service.infer("tiny", max_new_tokens=2)
    service.infer("no-such-model")
    stats = service.get("/inference/stats").json()
    assert stats["total_inferences"] == before["total_inferences"] + 2
    assert stats["successful_inferences"] == before["successful_inferences"] + 1
    assert stats["failed_inferences"] == before["failed_inferences"] + 1
    assert 0 <= stats["success_rate"] <= 1
    assert 0 <= stats["cache_hit_rate"] <= 1
    assert stats["cached_models"] >= 1
    assert stats["uptime"] > 0
    assert stats["tasks"]["text-generation"]["handlers"] == {"default": "TextGenerationHandler"}
    loaded = stats["models"]["tiny"]["loaded"][0]
    assert loaded.keys() >= {
        "state", "pid", "device", "dtype", "memory_bytes", "loads", "in_flight", "queued", "idle_seconds",
    }  # fmt: skip
    assert loaded["pid"] in service.workers()
    assert stats["models"]["tiny"]["latency_seconds"]["p50"] > 0


def test_clearing_the_cache_unloads_and_counts(service: Service) -> None:
    service.infer("tiny", max_new_tokens=1)
    body = service.post("/inference/cache/clear").json()
    assert body["success"] is True
    assert body["cleared_models"] >= 1
    assert str(body["cleared_models"]) in body["message"]
    wait_until(lambda: service.workers() == [], 10, "the workers to be gone")
    assert service.get("/inference/stats").json()["cached_models"] == 0
    assert service.infer("tiny", max_new_tokens=1).status_code == 200


def test_probes(service: Service) -> None:
    assert service.get("/livez").status_code == 200
    assert service.get("/readyz").status_code == 200
    assert service.get("/readyz", params={"model": "demo-text"}).status_code == 200
    missing = service.get("/readyz", params={"model": "no-such-model"})
    assert missing.status_code == 404
    assert "not found" in missing.json()["error"]


def test_metrics_count_inferences(service: Service) -> None:
    service.infer("tiny", max_new_tokens=1)
    text = service.get("/metrics").text
    assert 'aiml_inferences_total{engine="transformers",outcome="success",task="text-generation"}' in text
    assert "aiml_inference_duration_seconds_bucket" in text


def test_swagger_names_the_one_door(service: Service) -> None:
    assert "swagger" in service.get("/docs").text.lower()
    document = service.get("/openapi.json").json()
    responses = document["paths"]["/inference/infer"]["post"]["responses"]
    assert responses.keys() >= {"200", "400", "401", "403", "404", "413", "415", "422", "503", "504", "507"}


def test_request_ids_are_kept_and_made(service: Service) -> None:
    given = service.get("/inference/health", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = service.infer("no-such-model")
    assert made.headers["x-request-id"] == made.json()["request_id"]


def test_one_log_line_per_inference_names_version_and_commit(service: Service) -> None:
    body = service.infer("tiny", max_new_tokens=1).json()

    def of_this_request() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("request_id") == body["request_id"] and line["event"] == "inference"]

    wait_until(of_this_request, 10, "the line to be written")
    mine = of_this_request()
    assert len(mine) == 1
    assert mine[0]["version"] == "1"
    assert mine[0]["commit"] == body["provenance"]["commit"]


def test_unknown_paths_and_methods_wear_the_envelope(service: Service) -> None:
    missing = service.get("/no/such/path")
    assert (missing.status_code, missing.json()["success"]) == (404, False)
    wrong = service.get("/inference/infer")
    assert (wrong.status_code, wrong.json()["success"]) == (405, False)
    assert wrong.headers["allow"] == "POST"


def test_a_large_body_is_refused_at_once(service: Service) -> None:
    response = service.post("/inference/infer", {"data": "x" * 65_000_000})
    assert response.status_code == 413
    assert "AIML_MAX_BODY_MB" in response.json()["error"]


def test_json_routes_want_json(service: Service) -> None:
    response = httpx.post(service.url + "/inference/infer", content="a=b", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]


def _in_flight(service: Service, model: str) -> int:
    loaded = service.get("/inference/stats").json()["models"][model].get("loaded", [])
    return sum(entry["in_flight"] + entry["queued"] for entry in loaded)
