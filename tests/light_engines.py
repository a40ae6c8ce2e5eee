"""An engine and a handler without a model, importable in a worker process, which do as `data` says."""

import os
import random
import sys
import time
from typing import Any

from src.core.errors import CancelledError
from src.inference.engines.base import BaseEngine, stop_requested
from src.inference.models.base import BaseModelHandler
from src.inference.types import JsonObject
from src.inference.workers.base import LoadSpec
from src.inference.workers.host import class_reference


class ObedientEngine(BaseEngine):
    """Its model is the list of what it was asked; each request names one of its methods under `do`."""

    name = "obedient"

    def load_model(self, model_name: str, **kwargs: Any) -> list[Any]:
        getattr(self, f"load_{model_name}")()
        return []

    def infer(self, model: list[Any], inputs: Any, options: JsonObject) -> Any:
        model.append(inputs.get("say"))
        return getattr(self, inputs["do"])(model, inputs)

    def unload_model(self, model: Any) -> bool:
        model.append("unloaded")
        return True

    def describe(self, model: Any) -> JsonObject:
        return {"device": "cpu", "dtype": "float32", "parameter_bytes": 5}

    def version(self) -> str:
        return "1.0"

    # ------------------------------------------------------------------ what a load can do

    def load_steady(self) -> None:
        pass

    def load_missing(self) -> None:
        raise FileNotFoundError("no such model")

    def load_broken(self) -> None:
        raise RuntimeError("broken weights")

    def load_deadly(self) -> None:
        os._exit(3)

    def load_slow(self) -> None:
        time.sleep(60)

    # ------------------------------------------------------------------ what a request can do

    def echo(self, model: Any, inputs: JsonObject) -> Any:
        return {"response": inputs.get("say"), "pid": os.getpid(), "warnings": inputs.get("warn", [])}

    def seen(self, model: Any, inputs: JsonObject) -> Any:
        return {"response": list(model)}

    def wait_for_stop(self, model: Any, inputs: JsonObject) -> Any:
        deadline = time.monotonic() + 60
        while not stop_requested() and time.monotonic() < deadline:
            time.sleep(0.005)
        raise CancelledError("stopped")

    def sleep(self, model: Any, inputs: JsonObject) -> Any:
        time.sleep(inputs["seconds"])
        return {"response": "slept"}

    def draw(self, model: Any, inputs: JsonObject) -> Any:
        import torch

        return {"response": [random.random(), torch.rand(1).item()]}

    def multiply(self, model: Any, inputs: JsonObject) -> Any:
        import torch

        square = torch.ones(inputs["size"], inputs["size"])
        return {"response": float((square @ square)[0, 0])}

    def parent(self, model: Any, inputs: JsonObject) -> Any:
        return {"response": os.getppid()}

    def fail(self, model: Any, inputs: JsonObject) -> Any:
        raise RuntimeError("broken on purpose")

    def leave(self, model: Any, inputs: JsonObject) -> Any:
        sys.exit("an engine that ends its interpreter")

    def unspeakable(self, model: Any, inputs: JsonObject) -> Any:
        return {"response": object()}

    def shout(self, model: Any, inputs: JsonObject) -> Any:
        print("noise from a library", flush=True)
        os.write(1, b"noise from C\n")
        return {"response": "done"}


class ObedientHandler(BaseModelHandler):
    """Refuses what has no `do`."""

    task = "obey"
    required_fields = ("do",)


def obedient_spec(model_name: str = "steady", **changes: Any) -> LoadSpec:
    """Returns the spec that loads an `ObedientEngine`."""
    fields = {
        "engine": class_reference(ObedientEngine),
        "engine_config": {},
        "handler": class_reference(ObedientHandler),
        "task": "obey",
        "model_name": model_name,
        "model_path": None,
        "device": None,
        "dtype": None,
        **changes,
    }
    return LoadSpec(**fields)
