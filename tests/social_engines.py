"""Engines without a model that run requests together: in batches, step by step, or telling answers piece by piece."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from src.core.errors import InvalidInputError, PlatformError
from src.inference.engines.base import BaseEngine, Delta, Scheduler, emit, is_streamed, stop_requested
from src.inference.types import JsonObject
from src.inference.workers.base import LoadSpec
from src.inference.workers.host import class_reference
from tests.light_engines import ObedientHandler, obedient_spec


class BatchEngine(BaseEngine):
    """Answers with what it was given together; inputs of equal `shape` go together, those without go alone.

    It takes `seconds` for one input, and the longest `together_seconds` for several.
    """

    name = "batch"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.supported_tasks = [ObedientHandler.task]
        self.is_initialized = True

    def load_model(self, model_name: str, **kwargs: Any) -> str:
        return model_name

    def infer(self, model: str, inputs: Any, options: JsonObject) -> Any:
        end = time.monotonic() + inputs.get("seconds", 0.0)
        while time.monotonic() < end and not stop_requested():
            time.sleep(0.005)
        for word in inputs.get("words", []):
            emit(word)
        return {"response": [inputs["do"]], "streamed": is_streamed()}

    def batch_key(self, model: str, inputs: Any, options: JsonObject) -> Hashable | None:
        shape: Hashable | None = inputs.get("shape")
        return shape

    def infer_batch(self, model: str, batch: Sequence[Any], options: JsonObject) -> list[Any]:
        if any(inputs["do"] == "break" for inputs in batch):
            raise RuntimeError("broken on purpose")
        names = [inputs["do"] for inputs in batch]
        time.sleep(max(inputs.get("together_seconds", 0.0) for inputs in batch))
        return [
            InvalidInputError("this one is bad") if inputs["do"] == "bad" else {"response": names} for inputs in batch
        ]


class StepEngine(BatchEngine):
    """Counts to `tokens`, a step each, with whoever else is inside."""

    name = "step"

    def scheduler(self, model: str) -> Scheduler:
        return Counting()


class Counting:
    """The scheduler of a StepEngine: `{"do": name, "tokens": n}`; `alone` is not taken, `burst` breaks a step."""

    def __init__(self) -> None:
        self._inside: dict[int, tuple[JsonObject, list[str], Callable[[str], None] | None]] = {}
        self._crowd = 0

    def __len__(self) -> int:
        return len(self._inside)

    def takes(self, inputs: Any, options: JsonObject) -> bool:
        return not inputs.get("alone")

    def add(self, key: int, inputs: Any, options: JsonObject, emit: Callable[[str], None] | None) -> None:
        if inputs["tokens"] < 0:
            raise InvalidInputError("nobody counts down here")
        self._inside[key] = (inputs, [], emit)

    def step(self) -> list[tuple[int, Any | PlatformError]]:
        time.sleep(max((inputs.get("pause", 0.005) for inputs, _, _ in self._inside.values()), default=0.0))
        self._crowd = max(self._crowd, len(self))
        if any(inputs["do"] == "burst" for inputs, _, _ in self._inside.values()):
            raise RuntimeError("a step that breaks")
        finished: list[tuple[int, Any | PlatformError]] = []
        for key, (inputs, words, tell) in list(self._inside.items()):
            words.append(f"{len(words)} ")
            if tell is not None:
                tell(words[-1])
            if len(words) >= inputs["tokens"]:
                del self._inside[key]
                finished.append((key, {"response": "".join(words), "crowd": self._crowd}))
        if not self._inside:
            self._crowd = 0
        return finished

    def cancel(self, key: int) -> None:
        self._inside.pop(key, None)
        if not self._inside:
            self._crowd = 0


class TalkingEngine(BatchEngine):
    """Tells `words` one by one, as a stranger's engine would: by overriding `stream`."""

    name = "talking"

    def infer(self, model: str, inputs: Any, options: JsonObject) -> Any:
        return {"response": "".join(inputs["words"])}

    def stream(self, model: str, inputs: Any, options: JsonObject) -> Iterator[Any]:
        for word in inputs["words"]:
            if word == "break":
                raise RuntimeError("broken midway")
            yield Delta(word)
        yield self.infer(model, inputs, options)


def social_spec(engine: type[BaseEngine]) -> LoadSpec:
    """Returns the spec that loads one of these engines."""
    return obedient_spec(engine=class_reference(engine), handler=class_reference(ObedientHandler))


def install(folder: Path) -> dict[str, str]:
    """Writes the metadata of a distribution that brings the engines; returns the environment in which it is found."""
    metadata = folder / "social_plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: social-plugin\nVersion: 1.0\n")
    engines = (BatchEngine, StepEngine, TalkingEngine)
    lines = [f"{engine.name} = {__name__}:{engine.__name__}" for engine in engines]
    handler = f"obey = {ObedientHandler.__module__}:{ObedientHandler.__name__}"
    (metadata / "entry_points.txt").write_text("\n".join(["[aiml.handlers]", handler, "[aiml.engines]", *lines, ""]))
    return {"PYTHONPATH": str(folder)}
