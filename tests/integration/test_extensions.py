"""A custom handler and a custom engine, written as a stranger would from the documentation."""

import os
from pathlib import Path

import pytest

from tests.integration.conftest import register_models
from tests.integration.test_python_door import run

PARTS = """
from src.inference.models.base import BaseModelHandler
from src.inference.engines.base import BaseEngine


class CustomTaskHandler(BaseModelHandler):
    def preprocess(self, data, options):
        self.validate_input(data, ["custom_input"])
        return {"inputs": data["custom_input"].upper(), "options": options}

    def postprocess(self, result, options):
        return {"custom_output": result["response"], "metadata": result["metadata"]}


class CustomEngine(BaseEngine):
    def __init__(self, config=None):
        super().__init__(config)
        self.supported_tasks = ["custom-task"]
        self.is_initialized = True

    def load_model(self, model_name, **kwargs):
        if model_name == "missing":
            raise FileNotFoundError("no such weights")
        return {"name": model_name, "path": kwargs.get("model_path"), "task": kwargs["task"]}

    def infer(self, model, inputs, options):
        import os
        if inputs == "BREAK":
            raise RuntimeError("broken on purpose")
        return {
            "response": f"{model['task']}:{inputs}:{options.get('custom_option')}",
            "metadata": {"pid": os.getpid(), "path": model["path"]},
        }

    def unload_model(self, model):
        return True
"""
REGISTER = """
from src.inference import inference_manager
from src.inference.registry import model_registry
from src.inference.engines.transformers import TransformersEngine
model_registry.register_handler_manually(
    task="custom-task", model_pattern="default", handler_class=CustomTaskHandler)
inference_manager.router._task_engine_mapping["custom-task"] = {
    "custom": CustomEngine, "transformers": TransformersEngine}
"""
ASK = """
import json, os
def ask(text, model="anything", **options):
    return inference_manager.infer("custom-task", "custom", model, {"custom_input": text}, options)
"""
CHECK = """
good = ask("hello", custom_option=7)
assert good["success"], good
bad = inference_manager.infer("custom-task", "custom", "anything", {"other": 1}, {})
print(json.dumps({
    "output": good["result"]["custom_output"],
    "own_process": good["result"]["metadata"]["pid"] != os.getpid(),
    "bad": [bad["error_type"], bad["error"]],
    "broken": [ask("break")["error_type"], ask("break")["error"]],
    "missing": ask("x", model="missing")["error_type"],
    "after": ask("again")["success"],
    "stats": inference_manager.get_stats()["tasks"]["custom-task"],
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    data_dir = tmp_path_factory.mktemp("extensions") / "data"
    data_dir.mkdir()
    register_models(data_dir, tiny_model)
    return data_dir


@pytest.mark.parametrize("importable", [False, True], ids=["defined in the script", "imported"])
def test_custom_engine_and_handler_registered_by_hand(folder: Path, tmp_path: Path, importable: bool) -> None:
    parts = PARTS
    if importable:
        (folder.parent / "strangers_parts.py").write_text(PARTS)
        parts = "from strangers_parts import CustomEngine, CustomTaskHandler\n"
    answer = run(parts + REGISTER + ASK + CHECK, folder)
    assert answer["output"] == "custom-task:HELLO:7"
    assert answer["own_process"] is importable
    assert answer["bad"][0] == "ValueError"
    assert "'custom_input'" in answer["bad"][1]
    assert answer["broken"][0] == "EngineError"
    assert "CustomEngine" in answer["broken"][1]
    assert "broken on purpose" in answer["broken"][1]
    assert answer["missing"] == "ModelNotFoundError"
    assert answer["after"] is True
    assert answer["stats"]["handlers"] == {"default": "CustomTaskHandler"}
    assert answer["stats"]["engines"] == ["custom", "transformers"]


def test_a_registered_model_reaches_a_custom_engine_with_its_path(folder: Path, tiny_model: Path) -> None:
    script = (
        PARTS
        + REGISTER
        + ASK
        + f"""
from src.core.model_manager import model_manager
model_manager.register_model_to_mlflow(model_name="for-custom", model_source="local", model_path={str(tiny_model)!r},
    tags={{"task": "custom-task", "engine": "custom"}})
answer = ask("hello", model="for-custom")
made_by = answer["provenance"]
print(json.dumps([answer["result"]["metadata"]["path"], made_by["version"], made_by["commit"]]))
"""
    )
    path, version, commit = run(script, folder)
    assert (Path(path) / "config.json").is_file()
    assert version == "1"
    assert path.endswith(commit)


def test_a_custom_handler_on_the_transformers_engine(folder: Path) -> None:
    script = """
    import json
    from src.inference import inference_manager
    from src.inference.models.base import BaseModelHandler
    from src.inference.registry import model_registry

    class ShoutHandler(BaseModelHandler):
        def preprocess(self, data, options):
            self.validate_input(data, ["custom_input"])
            return {"inputs": data["custom_input"], "options": {"max_new_tokens": 4, "seed": 1}}

        def postprocess(self, result, options):
            return {"shout": result["response"].upper()}

    model_registry.register_handler_manually(task="shout", model_pattern="default", handler_class=ShoutHandler)
    answer = inference_manager.infer("shout", "transformers", "tiny", {"custom_input": "hi"}, {"my_option": 1})
    print(json.dumps([answer["success"], list(answer.get("result", {})), answer.get("warnings"), answer.get("error")]))
    """
    success, fields, warnings, error = run(script, folder)
    assert success, error
    assert fields == ["shout"]
    assert "text-generation" in warnings[0]


def test_by_import_into_the_models_package(folder: Path) -> None:
    script = (
        PARTS
        + """
import json
import src.inference.models
src.inference.models.CustomTaskHandler = CustomTaskHandler  # what `from … import CustomTaskHandler` there does
from src.inference import inference_manager
inference_manager.router._task_engine_mapping["custom-task"] = {"custom": CustomEngine}
answer = inference_manager.infer("custom-task", "custom", "m", {"custom_input": "x"})
print(json.dumps(answer["result"]["custom_output"]))
"""
    )
    assert run(script, folder) == "custom-task:X:None"


def test_by_entry_point(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "stranger_plugin.py").write_text(
        PARTS.replace("CustomEngine(BaseEngine):", "CustomEngine(BaseEngine):\n    name = 'custom'\n")
    )
    metadata = tmp_path / "stranger_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[aiml.handlers]\ncustom = stranger_plugin:CustomTaskHandler\nbroken = nowhere_to_be_found:Handler\n"
        "[aiml.engines]\ncustom = stranger_plugin:CustomEngine\n"
    )
    script = f"""
    import sys; sys.path.insert(0, {str(tmp_path)!r})
    import json, os
    from src.inference import inference_manager
    answer = inference_manager.infer("custom-task", "custom", "m", {{"custom_input": "x"}})
    print(json.dumps([answer["result"]["custom_output"], answer["result"]["metadata"]["pid"] != os.getpid()]))
    """
    env_path = os.environ.get("PYTHONPATH", "")
    assert str(tmp_path) not in env_path
    output, own_process = run(script, folder, allow_traceback=True)
    assert output == "custom-task:X:None"
    assert own_process is True
