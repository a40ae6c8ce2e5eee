"""A task that does nothing: what is left is the cost of the service itself."""

from collections.abc import Sequence
from typing import Any

from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler


class NoopHandler(BaseModelHandler):
    """Passes a text through."""

    required_fields = ("inputs",)

    def preprocess(self, data: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        self.validate_input(data, self.required_fields)
        return {"inputs": data["inputs"], "options": options}

    def postprocess(self, result: Any, options: dict[str, Any]) -> dict[str, Any]:
        return {"echo": result}


class NoopEngine(BaseEngine):
    """Returns its input."""

    name = "noop"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.supported_tasks = ["noop"]
        self.is_initialized = True

    def load_model(self, model_name: str, **kwargs: Any) -> str:
        return model_name

    def infer(self, model: str, inputs: Any, options: dict[str, Any]) -> Any:
        return inputs

    def infer_batch(self, model: str, batch: Sequence[Any], options: dict[str, Any]) -> list[Any]:
        return list(batch)
