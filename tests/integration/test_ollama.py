"""OllamaEngine against the fake server that the recordings prove, and a real one where OLLAMA_HOST reaches it."""

import concurrent.futures
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.core.config import load_settings
from src.core.model_manager import ModelManager
from src.inference.manager import InferenceManager
from src.inference.registry import ModelRegistry
from src.testing.fake_ollama import FakeModel, FakeOllama
from tests.service import free_port

Ask = Any


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with registered Ollama models."""
    folder = tmp_path_factory.mktemp("ollama") / "data"
    models = ModelManager(load_settings(data_dir=folder))
    for name, ollama_name in (("llama2-7b", "tiny"), ("needs/pull:1", "pulled"), ("nowhere", "not-in-any-registry")):
        models.registry.register(
            name,
            source=f"ollama://library/{ollama_name}",
            tags={"inference_task": "text-generation", "engine": "ollama", "ollama_model_name": ollama_name},
            stage="production",
        )
    models.close()
    return folder


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    """A server of the test's own."""
    with FakeOllama(pullable=[FakeModel("pulled")]) as fake:
        yield fake


@pytest.fixture
def manager(data_dir: Path, server: FakeOllama) -> Iterator[InferenceManager]:
    """A manager over the data folder and the server."""
    yield from managed(data_dir, api_base=server.url)


def managed(data_dir: Path, **ollama: Any) -> Iterator[InferenceManager]:
    models = ModelManager(load_settings(data_dir=data_dir, ollama=ollama))
    manager = InferenceManager(models, ModelRegistry())
    yield manager
    manager.close()


def ask(
    manager: InferenceManager, model: str = "llama2-7b", inputs: Any = "請解釋什麼是深度學習", **options: Any
) -> Any:
    return manager.infer("text-generation", "ollama", model, {"inputs": inputs}, options)


def sent(server: FakeOllama) -> list[Any]:
    return [request for request in server.requests if request.path in ("/api/generate", "/api/chat")]


def test_a_prompt_goes_to_generate_with_the_options_translated(manager: InferenceManager, server: FakeOllama) -> None:
    answer = ask(manager, max_new_tokens=9, repetition_penalty=1.3, temperature=0.5, stop="zzz", seed=4, num_ctx=256)
    assert answer["success"], answer
    request = sent(server)[-1]
    assert request.path == "/api/generate"
    assert request.body["model"] == "tiny"
    assert request.body["prompt"] == "請解釋什麼是深度學習"
    assert request.body["options"] == {
        "num_predict": 9, "repeat_penalty": 1.3, "temperature": 0.5, "stop": ["zzz"], "seed": 4, "num_ctx": 256,
        "top_p": 0.9, "top_k": 50,
    }  # fmt: skip
    assert answer["result"]["metadata"] == {
        "model": "tiny", "tokens": 9, "finish_reason": "length",
        "prompt_tokens": answer["result"]["metadata"]["prompt_tokens"],
    }  # fmt: skip


def test_messages_go_to_chat(manager: InferenceManager, server: FakeOllama) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert ask(manager, inputs=messages, system="be short")["success"]
    request = sent(server)[-1]
    assert request.path == "/api/chat"
    assert request.body["messages"] == [{"role": "system", "content": "be short"}, *messages]


def test_provenance_names_the_real_model_and_the_digest_that_ollama_reports(
    manager: InferenceManager, server: FakeOllama
) -> None:
    provenance = ask(manager)["provenance"]
    tags = httpx.get(server.url + "/api/tags").json()["models"]
    digest = next(row["digest"] for row in tags if row["name"] == "tiny:latest")
    assert provenance["digest"] == f"sha256:{digest.removeprefix('sha256:')}"
    assert provenance["ollama_model"] == "tiny"
    assert provenance["registered_name"] == "llama2-7b"
    assert provenance["version"] == "1"
    assert provenance["source"] == "ollama://library/tiny"
    assert provenance["engine_version"] == "0.0.0"


def test_a_name_that_only_ollama_knows_is_served(manager: InferenceManager) -> None:
    answer = ask(manager, model="tiny")
    assert answer["success"], answer
    assert answer["provenance"]["registered_name"] is None
    assert answer["provenance"]["ollama_model"] == "tiny"
    assert len(answer["provenance"]["digest"]) >= 64


def test_a_version_that_only_carries_the_tag_of_mlflows_own_client_is_served(
    manager: InferenceManager, data_dir: Path
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{data_dir / 'mlflow.db'}", f"sqlite:///{data_dir / 'mlflow.db'}")
    client.create_registered_model("llama2-7b-chat")
    client.create_model_version("llama2-7b-chat", "ollama://library/tiny", run_id=None)
    client.set_model_version_tag(name="llama2-7b-chat", version="1", key="ollama_model_name", value="tiny")
    answer = ask(manager, model="llama2-7b-chat")
    assert answer["success"], answer
    assert answer["provenance"]["ollama_model"] == "tiny"
    assert answer["provenance"]["version"] == "1"


def test_the_mapping_is_cached_and_the_executor_reused(manager: InferenceManager, server: FakeOllama) -> None:
    ask(manager)
    executor = manager.router.route("text-generation", "ollama", "llama2-7b")
    before = len(server.requests)
    ask(manager)
    assert manager.router.route("text-generation", "ollama", "another") is executor
    assert [request.path for request in server.requests[before:]] == ["/api/generate"]


def test_a_registered_model_that_ollama_lacks_is_pulled_once(manager: InferenceManager, server: FakeOllama) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: ask(manager, model="needs/pull:1"), range(4)))
    assert all(answer["success"] for answer in answers), answers
    assert [request.path for request in server.requests].count("/api/pull") == 1


def test_a_pull_that_fails_says_so(manager: InferenceManager) -> None:
    answer = ask(manager, model="nowhere")
    assert answer["error_type"] == "ModelNotFoundError"
    assert "could not pull" in answer["error"]


def test_a_name_that_nobody_registered_is_never_pulled(manager: InferenceManager, server: FakeOllama) -> None:
    answer = ask(manager, model="pulled")
    assert answer["error_type"] == "ModelNotFoundError"
    assert "/api/pull" not in [request.path for request in server.requests]


def test_auto_pull_off_names_the_command(data_dir: Path, server: FakeOllama) -> None:
    for manager in managed(data_dir, api_base=server.url, auto_pull=False):
        answer = ask(manager, model="needs/pull:1")
        assert answer["error_type"] == "ModelNotFoundError"
        assert "ollama pull pulled" in answer["error"]
        assert "/api/pull" not in [request.path for request in server.requests]


def test_ollama_down_says_where_it_looked_and_how_to_start_it(data_dir: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    for manager in managed(data_dir, api_base=address):
        answer = ask(manager)
        assert answer["error_type"] == "EngineUnavailableError"
        assert answer["error"].startswith("Failed to connect to Ollama server")
        assert address in answer["error"]
        assert "ollama serve" in answer["error"]
        assert answer["retryable"] is True
        health = manager.health_check()
        assert health["status"] == "degraded"
        assert health["dependencies"]["ollama"]["status"] == "unreachable"


def test_a_full_queue_is_retryable(data_dir: Path) -> None:
    with FakeOllama(parallel=1, max_queue=1, token_delay=0.05) as server:
        for manager in managed(data_dir, api_base=server.url):
            ask(manager, max_new_tokens=1)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                waiting = [pool.submit(ask, manager, max_new_tokens=10) for _ in range(8)]
                answers = [future.result() for future in waiting]
            refused = [answer for answer in answers if not answer["success"]]
            assert refused
            assert {answer["error_type"] for answer in refused} == {"QueueFullError"}
            assert all(answer["retryable"] for answer in refused)


def test_a_runner_that_dies_is_retryable_and_the_next_request_succeeds(
    manager: InferenceManager, server: FakeOllama
) -> None:
    server.pace.token_delay = 0.05
    ask(manager, max_new_tokens=1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, manager, max_new_tokens=100)
        while not server.active_generations:
            pass
        server.kill_runner()
        answer = waiting.result()
    assert answer["error_type"] == "WorkerDiedError"
    assert answer["retryable"] is True
    assert ask(manager, max_new_tokens=1)["success"]


def test_timeout_stops_ollamas_generation(manager: InferenceManager, server: FakeOllama) -> None:
    server.pace.token_delay = 0.05
    answer = ask(manager, max_new_tokens=200, timeout=0.5)
    assert answer["error_type"] == "InferenceTimeoutError"
    assert server.wait_until_idle(5)
    assert server.stopped_generations == 1


def test_impossible_options_and_a_cut_prompt_are_warnings(manager: InferenceManager) -> None:
    answer = ask(manager, inputs="the cat " * 400, num_beams=4, num_ctx=128, max_new_tokens=2)
    assert any("num_beams" in warning for warning in answer["warnings"])
    assert any("num_ctx" in warning for warning in answer["warnings"])


def test_a_tag_that_moved_since_registration_is_a_warning(data_dir: Path, server: FakeOllama) -> None:
    for manager in managed(data_dir, api_base=server.url):
        manager._models.registry.register(
            "drifts",
            source="ollama://library/tiny",
            tags={
                "inference_task": "text-generation",
                "engine": "ollama",
                "ollama_model_name": "tiny",
                "model_digest": "sha256:" + "0" * 64,
            },
        )
        answer = ask(manager, model="drifts")
        assert any("has moved" in warning for warning in answer["warnings"])


@pytest.mark.skipif(not os.environ.get("OLLAMA_HOST"), reason="no real Ollama: OLLAMA_HOST is not set")
def test_against_a_real_server(data_dir: Path) -> None:
    for manager in managed(data_dir, api_base=os.environ["OLLAMA_HOST"]):
        base = load_settings().ollama.api_base
        names = [row["name"] for row in httpx.get(base + "/api/tags").json()["models"]]
        if not names:
            pytest.skip(f"the Ollama at {base} has no model")
        answer = ask(manager, model=names[0], inputs="Say hi.", max_new_tokens=8)
        assert answer["success"], answer
        assert answer["result"]["metadata"]["tokens"] > 0
