"""An engine that tells what became of media: their shapes, and the process that saw them.

Tasks: `shapes` takes media of every kind, `look` one picture.
"""

import os
from pathlib import Path
from typing import Any

from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler, MediaField
from src.inference.types import JsonObject

TASK, LOOK, ENGINE = "shapes", "look", "shapes"


class ShapesEngine(BaseEngine):
    """Tells what it gets; its models are names and nothing else."""

    name = ENGINE

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.supported_tasks = [TASK, LOOK]
        self.is_initialized = True

    def load_model(self, model_name: str, **kwargs: Any) -> str:
        return model_name

    def infer(self, model: str, inputs: Any, options: JsonObject) -> Any:
        return {"shapes": _told(inputs), "pid": os.getpid()}


class ShapesHandler(BaseModelHandler):
    """Takes media of every kind."""

    task = TASK
    media = {  # noqa: RUF012
        "image": MediaField("image", many=True),
        "audio": MediaField("audio"),
        "video": MediaField("video"),
        "document": MediaField("document"),
    }

    @classmethod
    def media_wishes(cls, field: str, options: JsonObject, facts: JsonObject) -> JsonObject:
        return {"document": {"dpi": 36}, "video": {"num_frames": 4}, "audio": {"rate": 8000}}.get(field, {})


class LookHandler(BaseModelHandler):
    """Takes one picture."""

    task = LOOK
    media = {"image": MediaField("image")}  # noqa: RUF012


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _told(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_told(item) for item in value]
    return list(value.shape) if hasattr(value, "shape") else value


def install(folder: Path) -> dict[str, str]:
    """Writes the metadata of a distribution that brings the plugin; returns the environment in which it is found."""
    metadata = folder / "media_plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: media-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[aiml.handlers]\nshapes = {__name__}:ShapesHandler\nlook = {__name__}:LookHandler\n"
        f"[aiml.engines]\nshapes = {__name__}:ShapesEngine\n"
    )
    return {"PYTHONPATH": str(folder)}
