"""Kept results, end to end: who asks the same of the same content has the same answer without the model."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.core.config import load_settings
from src.core.model_manager import ModelManager
from src.inference.manager import InferenceManager
from src.inference.registry import ModelRegistry
from src.testing.fake_ollama import FakeModel, FakeOllama
from tests.redis_server import redis_server, redis_url
from tests.service import Service, free_port, running_service, wait_until
from tests.tiny_models import tiny_llama

SEER = FakeModel("seer", capabilities=("completion", "vision"))
ASKED = {"do_sample": False, "max_new_tokens": 5, "cache": True}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama((SEER,)) as fake:
        yield fake


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, server: FakeOllama) -> ModelManager:
    """Two versions of `tiny`, the first in production; `keeper`, which keeps results by its tag; `by-setting`."""
    folder = tmp_path_factory.mktemp("kept")
    models = ModelManager(
        load_settings(
            data_dir=folder / "data",
            ollama={"api_base": server.url},
            workers={"isolation": "thread"},
            models={"by-setting": {"cache_results": True}},
        )
    )
    tags = {"task": "text-generation", "engine": "transformers"}
    files = [tiny_llama(folder / f"v{seed}", seed=seed) for seed in range(2)]
    models.register_model_to_mlflow("tiny", "local", files[0], tags, stage="production")
    models.register_model_to_mlflow("tiny", "local", files[1], tags)
    models.register_model_to_mlflow("keeper", "local", files[0], {**tags, "cache_results": "true"}, stage="production")
    models.register_model_to_mlflow("by-setting", "local", files[0], tags, stage="production")
    return models


@pytest.fixture(scope="module")
def one(models: ModelManager) -> Iterator[InferenceManager]:
    manager = InferenceManager(models, ModelRegistry())
    yield manager
    manager.close()


@pytest.fixture
def manager(one: InferenceManager) -> InferenceManager:
    """A manager that keeps nothing yet."""
    one.clear_cache()
    return one


def ask(manager: InferenceManager, model: str = "tiny", text: str = "hello", **options: Any) -> dict[str, Any]:
    answer = manager.infer("text-generation", "transformers", model, {"inputs": text}, options)
    assert answer["success"], answer
    return answer


def see(manager: InferenceManager, image: Any, **options: Any) -> dict[str, Any]:
    data = {"image": image, "prompt": "What is this?"}
    answer = manager.infer("vlm", "ollama", "seer", data, {"cache": True, "seed": 1, **options})
    assert answer["success"], answer
    return answer


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_kept_result_is_marked_and_says_what_made_it(manager: InferenceManager) -> None:
    first, again = ask(manager, **ASKED), ask(manager, **{**ASKED, "timeout": 30, "queue_priority": 1})
    assert "cached" not in first
    assert again["cached"] is True
    assert again["result"] == first["result"]
    assert again["provenance"] == first["provenance"]
    assert again["request_id"] != first["request_id"]
    stats = manager.get_stats()["result_cache"]
    assert stats["backend"] == "memory"
    assert stats["entries"] == 1
    assert stats["bytes"] > 0


def test_a_kept_result_needs_no_loaded_model(manager: InferenceManager, one: InferenceManager) -> None:
    first = ask(manager, **ASKED)
    one._loop.run(one.cache.clear())
    assert manager.get_cached_models() == []
    assert ask(manager, **ASKED)["result"] == first["result"]
    assert manager.get_cached_models() == []


@pytest.mark.parametrize(
    ("text", "change"), [("other", {}), ("hello", {"max_new_tokens": 4}), ("hello", {"dtype": "bfloat16"})]
)
def test_another_question_is_computed(manager: InferenceManager, text: str, change: dict[str, Any]) -> None:
    ask(manager, **ASKED)
    assert "cached" not in ask(manager, text=text, **{**ASKED, **change})


def test_nothing_is_kept_unless_somebody_asks(manager: InferenceManager) -> None:
    for _ in range(2):
        assert "cached" not in ask(manager, do_sample=False, max_new_tokens=5)
    ask(manager, **ASKED)
    assert "cached" not in ask(manager, **{**ASKED, "cache": False})


def test_what_is_drawn_at_random_is_answered_with_a_warning(manager: InferenceManager) -> None:
    for _ in range(2):
        answer = ask(manager, max_new_tokens=5, cache=True)
        assert "cached" not in answer
        assert any("option 'cache' has no effect" in warning for warning in answer["warnings"])


@pytest.mark.parametrize("model", ["keeper", "by-setting"])
def test_a_model_may_keep_results_for_everybody(manager: InferenceManager, model: str) -> None:
    options = {"do_sample": False, "max_new_tokens": 5}
    ask(manager, model, **options)
    assert ask(manager, model, **options)["cached"]
    assert "cached" not in ask(manager, model, **options, cache=False)
    assert "warnings" not in ask(manager, model, max_new_tokens=5)


def test_another_version_has_results_of_its_own(manager: InferenceManager, models: ModelManager) -> None:
    first = ask(manager, **ASKED)
    models.transition_stage("tiny", "2", "production")
    second = ask(manager, **ASKED)
    assert "cached" not in second
    assert second["provenance"]["digest"] != first["provenance"]["digest"]
    assert second["result"] != first["result"]
    models.transition_stage("tiny", "1", "production")
    back = ask(manager, **ASKED)
    assert (back["cached"], back["result"]) == (True, first["result"])
    assert back["provenance"]["version"] == "1"


def test_clearing_the_cache_clears_results(manager: InferenceManager) -> None:
    ask(manager, **ASKED)
    manager.clear_cache()
    assert "cached" not in ask(manager, **ASKED)


def test_a_kept_result_is_one_piece_of_a_stream(manager: InferenceManager) -> None:
    first = ask(manager, **ASKED)
    events = [*manager.stream("text-generation", "transformers", "tiny", {"inputs": "hello"}, ASKED)]
    assert [event["type"] for event in events] == ["delta", "result"]
    assert events[0]["text"] == first["result"]["generated_text"]
    assert events[1]["cached"]


def test_a_picture_is_its_content_wherever_it_comes_from(manager: InferenceManager, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(picture(1))
    first = see(manager, str(path))
    assert "cached" not in first
    for same in (base64.b64encode(picture(1)).decode(), picture(1), Image.open(path)):
        assert see(manager, same)["cached"]
    path.write_bytes(picture(2))
    other = see(manager, str(path))
    assert "cached" not in other
    assert other["result"] != first["result"]


def test_a_model_of_ollama_that_moves_has_results_of_its_own(manager: InferenceManager, server: FakeOllama) -> None:
    first = see(manager, picture(3))
    assert see(manager, picture(3))["cached"]
    try:
        server.put(replace(SEER, weights_digest="f" * 64))
        moved = see(manager, picture(3))
        assert "cached" not in moved
    finally:
        server.put(SEER)
    back = see(manager, picture(3))
    assert (back["cached"], back["result"]) == (True, first["result"])


def test_an_answer_that_a_moving_model_gave_is_not_kept(
    manager: InferenceManager, server: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    from src.inference.engines.ollama import OllamaEngine

    asked = OllamaEngine.ainfer

    async def moves(self: OllamaEngine, *args: Any) -> Any:
        server.put(replace(SEER, weights_digest="e" * 64))
        return await asked(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(OllamaEngine, "ainfer", moves)
        see(manager, picture(4))
    server.put(SEER)
    assert "cached" not in see(manager, picture(4))


# ---------------------------------------------------------------- over HTTP, with Redis


def infer(service: Service, **more: Any) -> Any:
    body = {
        "task": "text-generation", "engine": "ollama", "model_name": "seer", "data": {"inputs": "hello"},
        "options": {"cache": True, "temperature": 0, "num_predict": 5, **more},
    }  # fmt: skip
    return service.post("/inference/infer", body)


def redis_of(service: Service) -> Any:
    return service.get("/inference/health").json()["dependencies"]["redis"]


def test_two_services_share_results_and_go_on_without_redis(
    tmp_path: Path, server: FakeOllama, needs_program: Callable[[str], None]
) -> None:
    needs_program("redis-server")
    port = free_port()
    settings = {"OLLAMA_HOST": server.url, "AIML_RESULTS__REDIS_URL": redis_url(port)}
    with (
        redis_server(tmp_path, port) as redis,
        running_service(tmp_path / "one", **settings) as one,
        running_service(tmp_path / "two", **settings) as two,
    ):
        wait_until(lambda: redis_of(one)["status"] == redis_of(two)["status"] == "ok", 60, "Redis to be found")
        first = infer(one).json()
        wait_until(lambda: infer(two).json().get("cached"), 30, "the other service to have it")
        assert infer(two).json()["result"] == first["result"]
        assert two.get("/inference/stats").json()["result_cache"]["backend"] == "redis"
        redis.kill()
        redis.wait()
        for _ in range(20):
            answer = infer(one)
            assert answer.status_code == 200
            assert "cached" not in answer.json()
        wait_until(lambda: redis_of(one)["status"] == "unreachable", 30, "health to tell")
        assert one.get("/inference/health").json()["status"] == "degraded"
        logged = [json.loads(line) for line in one.log.read_text().splitlines() if "Redis" in line]
        assert len([line for line in logged if line["level"] == "warning"]) == 1
        with redis_server(tmp_path, port):
            wait_until(lambda: infer(one).json().get("cached"), 30, "Redis to be used again")
