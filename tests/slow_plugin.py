"""An engine that loads as slowly as its model says, and answers with what is written in the model's files.

A model is a folder with `answer` (text), `seconds` (that its load takes) and, if it is `broken`, a file of that name.
"""

import os
import time
from pathlib import Path
from typing import Any

from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler
from src.inference.types import JsonObject

TASK, ENGINE = "tell", "slow"


class SlowEngine(BaseEngine):
    """Tells its model's answer, after `data["seconds"]`, or once there is a file at `data["until"]`."""

    name = ENGINE
    needs_registered_model = True

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.supported_tasks = [TASK]
        self.is_initialized = True

    def load_model(self, model_name: str, **kwargs: Any) -> str:
        folder = Path(kwargs["model_path"])
        time.sleep(float((folder / "seconds").read_text()))
        if (folder / "broken").exists():
            raise RuntimeError("these weights are broken")
        if (folder / "deadly").exists():
            os._exit(7)
        return (folder / "answer").read_text()

    def infer(self, model: str, inputs: Any, options: JsonObject) -> Any:
        time.sleep(inputs.get("seconds", 0.0))
        while "until" in inputs and not os.path.exists(inputs["until"]):
            time.sleep(0.02)
        return {"response": model}

    def tasks_for(self, path: Path) -> list[str]:
        return [TASK] if (path / "answer").exists() else []


class TellHandler(BaseModelHandler):
    """Passes everything on."""

    task = TASK


def slow_model(folder: Path, answer: str, *, seconds: float = 0.0, fault: str | None = None) -> Path:
    """Writes a model; `fault`: `broken` or `deadly`."""
    folder.mkdir(parents=True)
    (folder / "answer").write_text(answer)
    (folder / "seconds").write_text(str(seconds))
    if fault:
        (folder / fault).touch()
    return folder


def install(folder: Path) -> dict[str, str]:
    """Writes the metadata of a distribution that brings the plugin; returns the environment in which it is found."""
    metadata = folder / "slow_plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[aiml.handlers]\ntell = {__name__}:TellHandler\n[aiml.engines]\nslow = {__name__}:SlowEngine\n"
    )
    return {"PYTHONPATH": str(folder)}
