"""Python: the door. One script, as users write it; each test looks at one of its lines."""

from typing import Any

import pytest

from src.testing.fake_ollama import FakeOllama
from tests.integration.test_python_door import run

PROMPT = "請解釋什麼是深度學習"
SCRIPT = """
import atexit, contextlib, io, json, logging, threading
from src.inference import inference_manager, InferenceError

log = io.StringIO()
logging.basicConfig(stream=log)
logging.getLogger("src.inference").setLevel(logging.DEBUG)
told = {}

printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    result = inference_manager.infer(
        task="text-generation", engine="ollama", model_name="llama2-7b",
        data={"inputs": "請解釋什麼是深度學習"},
        options={"max_length": 200, "temperature": 0.7, "top_p": 0.9})
    if result["success"]:
        print(result["result"]["generated_text"])
    else:
        print(result.get("error"))
told["by keyword"], told["printed"] = result, printed.getvalue()

result = inference_manager.infer(
    task="text-generation", engine="ollama", model_name="nobody", data={"inputs": "Hello"})
told["else"] = [result["success"], result.get("error")]

told["by position"] = inference_manager.infer("text-generation", "ollama", "llama2-7b", {"inputs": "Hello"})

told["on the cpu"] = inference_manager.infer(task="text-generation", engine="transformers", model_name="model",
    data={"inputs": "…"}, options={"device": "cpu"})

health = inference_manager.health_check();  assert health["status"] == "healthy" and all(health["components"].values())
stats = inference_manager.get_stats();      assert "total_inferences" in stats and "success_rate" in stats
told["health"], told["stats"] = health, stats
told["cached"] = inference_manager.get_cached_models()

by_schedule = threading.Timer(0, lambda: told.update({"by schedule": inference_manager.clear_cache()}))
by_schedule.start()
by_schedule.join()
told["cached after"] = inference_manager.get_cached_models()
told["cleared again"] = inference_manager.clear_cache()
atexit.register(inference_manager.clear_cache)

from src.inference.engines.ollama import OllamaEngine;              told["ollama"] = OllamaEngine().config
from src.inference.engines.transformers import TransformersEngine;  told["transformers"] = TransformersEngine().config

try:
    inference_manager.infer("text-generation", "ollama", "nobody", {"inputs": "Hello"}, raise_on_error=True)
except InferenceError as exc:
    told["raised"] = [type(exc).__name__, str(exc)]

told["pulled"] = inference_manager.infer("text-generation", "ollama", "llama2-13b", {"inputs": "Hello"})["success"]
told["log"] = log.getvalue()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(data_dir: Any, ollama: FakeOllama) -> Any:
    """What the script told."""
    return run(SCRIPT, data_dir, OLLAMA_HOST=ollama.url)


def test_infer_by_keyword(told: Any, ollama: FakeOllama) -> None:
    """`result = inference_manager.infer(task=…, engine=…, model_name=…, data={"inputs": …}, options={…})`."""
    assert told["by keyword"]["success"] is True
    # The server is there for every file of these tests: the first ones may have asked the same.
    body = [request.body for request in ollama.requests if _prompt(request.body) == PROMPT][-1]
    assert body["model"] == "llama2:7b"
    assert body["options"].items() >= {"num_predict": 200, "temperature": 0.7, "top_p": 0.9}.items()


def test_if_success_print_the_generated_text(told: Any) -> None:
    """`if result["success"]: print(result["result"]["generated_text"])`."""
    assert told["printed"] == told["by keyword"]["result"]["generated_text"] + "\n"
    assert told["printed"].strip()


def test_else_print_the_error(told: Any) -> None:
    """`else: print(result.get("error"))`."""
    success, error = told["else"]
    assert success is False
    assert "nobody" in error


def test_by_position(told: Any) -> None:
    """`inference_manager.infer("text-generation", "ollama", "llama2-7b", {"inputs": "Hello"})      # by position`."""
    answer = told["by position"]
    assert answer["success"] is True
    assert (answer["task"], answer["engine"], answer["model_name"]) == ("text-generation", "ollama", "llama2-7b")
    assert answer["result"]["generated_text"]


def test_the_documented_cure_for_cuda_out_of_memory(told: Any) -> None:
    """`data={"inputs": "…"}, options={"device": "cpu"})   # the documented cure for CUDA out of memory`."""
    assert told["on the cpu"]["success"] is True, told["on the cpu"]
    assert told["on the cpu"]["provenance"]["device"] == "cpu"


def test_health_check(told: Any) -> None:
    """`assert health["status"] == "healthy" and all(health["components"].values())`: the script asserts it."""
    assert told["health"]["components"].items() >= {"manager": True, "router": True, "cache": True}.items()


def test_get_stats(told: Any) -> None:
    """`assert "total_inferences" in stats and "success_rate" in stats`: the script asserts it."""
    assert told["stats"]["total_inferences"] == 4
    assert told["stats"]["success_rate"] == 0.75


def test_get_cached_models(told: Any) -> None:
    """`list of {"model_name", "version", "task", "engine", "device", "memory_bytes", "idle_seconds"}`."""
    [cached] = told["cached"]
    assert {
        "model_name": "model", "version": "1", "task": "text-generation", "engine": "transformers", "device": "cpu",
    }.items() <= cached.items()  # fmt: skip
    assert isinstance(cached["memory_bytes"], int)
    assert cached["memory_bytes"] > 10_000_000
    assert 0 <= cached["idle_seconds"] < 60


def test_clear_cache_by_schedule_and_by_atexit(told: Any) -> None:
    """`inference_manager.clear_cache()             # also run by schedule and by atexit`: `run` wants exit code 0."""
    assert (told["by schedule"], told["cached after"], told["cleared again"]) == (1, [], 0)


def test_ollama_engine_config(told: Any, ollama: FakeOllama) -> None:
    """`from src.inference.engines.ollama import OllamaEngine;              OllamaEngine().config`."""
    assert told["ollama"].items() >= {"api_base": ollama.url, "timeout": 300, "auto_pull": True}.items()
    assert "verify_ssl" in told["ollama"]


def test_transformers_engine_config(told: Any) -> None:
    """`from src.inference.engines.transformers import TransformersEngine;  TransformersEngine().config`."""
    assert told["transformers"].items() >= {
        "device": "auto", "torch_dtype": "auto", "trust_remote_code": True, "cache_dir": "./cache/models",
    }.items()  # fmt: skip


def test_inference_error_is_raised_on_wish(told: Any) -> None:
    """`from src.inference import inference_manager, InferenceError`, with `raise_on_error=True`."""
    kind, message = told["raised"]
    assert kind == "ModelNotFoundError"
    assert "Model 'nobody' not found in MLflow" in message


def test_the_logger_src_inference_set_to_debug(told: Any) -> None:
    """`logging.getLogger("src.inference").setLevel(logging.DEBUG)`."""
    assert told["pulled"] is True
    assert "INFO:src.inference.accounting:inference" in told["log"]
    assert "DEBUG:src.inference.engines.ollama.session:pull llama2:13b" in told["log"]


def _prompt(body: Any) -> Any:
    return body.get("prompt") if isinstance(body, dict) else None
