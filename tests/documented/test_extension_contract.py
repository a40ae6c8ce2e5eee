"""Extension: a handler and an engine, written line by line as documented, in one script."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_python_door import run
from tests.service import ROOT

PARTS = """
from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler


class CustomTaskHandler(BaseModelHandler):
    def preprocess(self, data, options):
        self.validate_input(data, ["custom_input"])
        if data["custom_input"] == "bad":
            raise ValueError("custom_input must be good")
        return {"inputs": data["custom_input"].upper(), "options": options}

    def postprocess(self, result, options):
        return {"custom_output": result["response"], "options": options, **result["metadata"]}


class CustomEngine(BaseEngine):
    unloaded = []

    def __init__(self, config=None):
        super().__init__(config)
        self.supported_tasks = ["custom-task"]
        self.is_initialized = True

    def load_model(self, model_name, **kwargs):
        return {"model_name": model_name, "model_path": kwargs["model_path"], "task": kwargs["task"]}

    def infer(self, model, inputs, options):
        return {"response": inputs + "!", "metadata": {"model": model, "given": options}}

    def unload_model(self, model):
        self.unloaded.append(model["model_name"])
        return True
"""
SCRIPT = (
    PARTS
    + """
import json
from src.inference import inference_manager
from src.inference.engines.transformers import TransformersEngine
from src.inference.registry import model_registry

told = {}
model_registry.register_handler_manually(
    task="custom-task", model_pattern="default", handler_class=CustomTaskHandler)
router = inference_manager.router
router._task_engine_mapping["custom-task"] = {"custom": CustomEngine, "transformers": TransformersEngine}

def ask(model_name, data, options=None):
    return inference_manager.infer("custom-task", "custom", model_name, data, options)

told["answer"] = ask("model-of-mine", {"custom_input": "hello"}, {"custom_option": 7})
told["missing"] = ask("model-of-mine", {"other": 1})
told["bad"] = ask("model-of-mine", {"custom_input": "bad"})
told["routed"] = [router.route("custom-task", engine).engine_class.__name__ for engine in ("custom", "transformers")]
told["cached"] = [model["engine"] for model in inference_manager.get_cached_models()]
inference_manager.clear_cache()
told["unloaded"] = CustomEngine.unloaded

from src.core.model_manager import model_manager
registered = model_manager.register_model_to_mlflow(model_name="for-custom", model_source="huggingface",
    model_path=PATH, tags={"task": "custom-task", "engine": "custom"})
told["physical_path"] = registered["tags"]["physical_path"]
told["registered"] = ask("for-custom", {"custom_input": "hello"})
print(json.dumps(told))
"""
)
IMPORTED = """
import json
from src.inference import inference_manager
from src.inference.models import CustomTaskHandler
from src.inference.models.custom_task import CustomEngine
inference_manager.router._task_engine_mapping["custom-task"] = {"custom": CustomEngine}
answer = inference_manager.infer("custom-task", "custom", "any", {"custom_input": "hello"}, {"custom_option": 7})
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def told(data_dir: Path, tiny_model: Path) -> Any:
    """What the script told."""
    return run(SCRIPT.replace("PATH", repr(str(tiny_model))), data_dir)


def test_preprocess_and_postprocess(told: Any) -> None:
    """`preprocess(self, data, options) -> {"inputs": …, "options": …}` and `postprocess(self, result, options)`."""
    answer = told["answer"]
    assert answer["success"] is True, answer
    assert answer["result"]["custom_output"] == "HELLO!"
    assert answer["result"]["options"] == answer["result"]["given"] == {"custom_option": 7}


def test_validate_input_names_the_missing_field(told: Any) -> None:
    """(Calls `self.validate_input(data, ["custom_input"])` …)."""
    assert told["missing"]["error_type"] == "ValueError"
    assert "'custom_input'" in told["missing"]["error"]


def test_value_error_for_bad_input(told: Any) -> None:
    """(… raises ValueError for bad input.)"""
    assert (told["bad"]["error_type"], told["bad"]["error"]) == ("ValueError", "custom_input must be good")


def test_registered_with_register_handler_manually(told: Any) -> None:
    """`model_registry.register_handler_manually(task="custom-task", model_pattern="default", handler_class=…)`."""
    assert (told["answer"]["task"], told["answer"]["engine"]) == ("custom-task", "custom")


def test_load_model_has_model_path_and_task_in_kwargs(told: Any) -> None:
    """`load_model(self, model_name, **kwargs)` (`model_path`, `task` in kwargs)."""
    loaded = told["answer"]["result"]["model"]
    assert loaded == {"model_name": "model-of-mine", "model_path": None, "task": "custom-task"}
    assert told["registered"]["success"] is True, told["registered"]
    assert told["registered"]["result"]["model"]["model_path"] == told["physical_path"]


def test_unload_model(told: Any) -> None:
    """`unload_model(self, model) -> bool`."""
    assert told["cached"] == ["custom"]
    assert told["unloaded"] == ["model-of-mine"]


def test_task_engine_mapping(told: Any) -> None:
    """`router._task_engine_mapping["custom-task"] = {"custom": CustomEngine, "transformers": TransformersEngine}`."""
    assert told["routed"] == ["CustomEngine", "TransformersEngine"]


def test_imported_in_the_models_package(data_dir: Path, tmp_path: Path) -> None:
    """Imported in `src/inference/models/__init__.py`: written into that file of a copy, as the user writes it."""
    models = tmp_path / "src" / "inference" / "models"
    _copy_sources(tmp_path)
    (models / "custom_task.py").write_text(PARTS)
    with (models / "__init__.py").open("a") as file:
        file.write("\nfrom src.inference.models.custom_task import CustomTaskHandler  # noqa\n")
    answer = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + IMPORTED, data_dir)
    assert answer["success"] is True, answer
    assert answer["result"]["custom_output"] == "HELLO!"
    assert answer["result"]["given"] == {"custom_option": 7}


def _copy_sources(folder: Path) -> None:
    for path in (ROOT / "src").rglob("*"):
        if path.suffix in (".py", ".yaml"):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
