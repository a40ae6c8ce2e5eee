"""Python: model_manager, and MLflow's own client beside it. One script; each test looks at one of its lines."""

import concurrent.futures
from pathlib import Path
from typing import Any

import pytest

from src.testing.fake_ollama import FakeOllama
from tests.documented.conftest import managed
from tests.integration.test_python_door import run
from tests.service import wait_until

SCRIPT = """
import json
from src.inference import inference_manager
told = {}

from mlflow.tracking import MlflowClient      # somebody registers an Ollama model without us
MlflowClient().create_registered_model("llama2-7b-chat")
MlflowClient().create_model_version(name="llama2-7b-chat", source="ollama", run_id=None)
MlflowClient().set_model_version_tag(name="llama2-7b-chat", version="1", key="ollama_model_name", value="llama2:7b")

for name in ("llama2-7b-chat", "llama2:7b"):
    told[name] = inference_manager.infer("text-generation", "ollama", name, {"inputs": "Hello"})

from src.core.model_manager import model_manager
told["list before"] = model_manager.list_models_from_mlflow()
told["registered"] = model_manager.register_model_to_mlflow(
    model_name="your-model", model_source="huggingface", model_path=PATH,
    tags={"task": "text-generation", "engine": "transformers"})
told["physical_path"] = model_manager.get_model_details_from_mlflow("your-model")["tags"].get("physical_path")
told["list after"] = model_manager.list_models_from_mlflow()
told["served"] = inference_manager.infer(
    "text-generation", "transformers", "your-model", {"inputs": "Hello"}, {"max_new_tokens": 4})

router = inference_manager.router
told["router"] = type(router).__name__
told["same"] = [router.route("text-generation", engine) is router.route("text-generation", engine)
                for engine in ("ollama", "transformers")]
told["distinct"] = router.route("text-generation", "ollama") is not router.route("text-generation", "transformers")
told["loaded"] = len(inference_manager.get_cached_models())
router.clear_engines()
told["freed"] = inference_manager.get_cached_models()
told["after"] = inference_manager.infer("text-generation", "ollama", "llama2:7b", {"inputs": "Hello"})["success"]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(data_dir: Path, tiny_model: Path, ollama: FakeOllama) -> Any:
    """What the script told."""
    return run(SCRIPT.replace("PATH", repr(str(tiny_model))), data_dir, OLLAMA_HOST=ollama.url)


def test_set_model_version_tag_by_mlflows_own_client(told: Any) -> None:
    """`MlflowClient().set_model_version_tag(name="llama2-7b-chat", version="1", key="ollama_model_name", …)`."""
    provenance = told["llama2-7b-chat"]["provenance"]
    assert (provenance["registered_name"], provenance["version"]) == ("llama2-7b-chat", "1")
    assert provenance["ollama_model"] == "llama2:7b"


@pytest.mark.parametrize("name", ["llama2-7b-chat", "llama2:7b"])
def test_both_names_are_served_by_engine_ollama(told: Any, name: str) -> None:
    """Both `model_name: "llama2-7b-chat"` (registered) and `"llama2:7b"` (Ollama's own) are then served by …"""
    assert told[name]["success"] is True, told[name]
    assert told[name]["model_name"] == name
    assert told[name]["result"]["metadata"]["model"] == "llama2:7b"


def test_list_models_from_mlflow(told: Any) -> None:
    """`model_manager.list_models_from_mlflow()`."""
    before, after = ({model["name"] for model in told[when]} for when in ("list before", "list after"))
    assert {"llama2-7b", "llama2-7b-chat", "model"} <= before
    assert after - before == {"your-model"}


def test_register_model_to_mlflow(told: Any) -> None:
    """`model_manager.register_model_to_mlflow(model_name="your-model", model_source="huggingface", …`."""
    assert (told["registered"]["name"], told["registered"]["version"]) == ("your-model", "1")
    assert told["registered"]["tags"].items() >= {"inference_task": "text-generation", "engine": "transformers"}.items()
    assert told["served"]["success"] is True, told["served"]
    assert told["served"]["provenance"]["version"] == "1"


def test_get_model_details_from_mlflow(told: Any) -> None:
    """`model_manager.get_model_details_from_mlflow("your-model")["tags"].get("physical_path")`."""
    assert (Path(told["physical_path"]) / "config.json").is_file()


def test_inference_manager_router_is_the_task_router(told: Any) -> None:
    """`inference_manager.router` is the TaskRouter."""
    assert told["router"] == "TaskRouter"


def test_the_same_executor_object_comes_back(told: Any) -> None:
    """The same executor object comes back for the same (task, engine)."""
    assert told["same"] == [True, True]
    assert told["distinct"] is True


def test_clear_engines_frees_all(told: Any) -> None:
    """`router.clear_engines()` frees all."""
    assert (told["loaded"], told["freed"], told["after"]) == (1, [], True)


def test_clear_engines_lets_a_request_under_way_end(data_dir: Path, ollama: FakeOllama) -> None:
    """`router.clear_engines()` frees all: what is in use, once it is no longer."""
    options = {"num_predict": 20, "temperature": 0}
    with managed(data_dir, ollama={"api_base": ollama.url}) as manager, concurrent.futures.ThreadPoolExecutor() as pool:
        ollama.pace.token_delay = 0.05
        executor = manager.router.route("text-generation", "ollama")
        answer = pool.submit(manager.infer, "text-generation", "ollama", "llama2:7b", {"inputs": "Hello"}, options)
        wait_until(lambda: ollama.active_generations, 5, "the generation to begin")
        manager.router.clear_engines()
        ollama.pace.token_delay = 0.0
        assert answer.result()["success"] is True, answer.result()
        assert executor.engine.version() is None
        assert manager.router.route("text-generation", "ollama") is not executor
