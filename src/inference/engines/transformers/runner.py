"""Runner: a loaded model that can do one task, with what prepares its inputs."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from transformers import AutoProcessor

from src.core.errors import ModelLoadError, PlatformError
from src.core.memory import give_back_freed
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.placement import pick_device
from src.inference.engines.transformers.quantizing import (
    format_of,
    load_arguments,
    scales,
    settled,
    try_out,
)
from src.inference.quantization import QUANTIZED
from src.inference.types import JsonObject
from src.inference.workers.failures import is_out_of_memory


class Runner:
    """Base of all runners. A subclass names its Auto class and has `run`."""

    auto_model: ClassVar[Any] = None
    auto_processor: ClassVar[Any] = AutoProcessor

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self.name = name
        self.model = model
        self.processor = processor
        self.device = str(model.device)
        self.dtype = format_of(model)

    @classmethod
    def load(cls, name: str, path: Path, *, device: str, dtype: str, trust_remote_code: bool) -> Self:
        """Loads a folder; raises `ModelLoadError` with the library's reason."""
        target = pick_device(device)
        own = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        try:
            placed = load_arguments(path, dtype, target)
            processor = cls.load_processor(path, **own)
            model = settled(cls.load_model(path, **placed, **own, weights_only=True), target)
        except Exception as exc:
            # Broken files surface as errors of whichever library met them first.
            if is_out_of_memory(exc) or isinstance(exc, PlatformError):
                raise
            raise ModelLoadError(f"Model '{name}' could not be loaded: {exc}") from exc
        runner = cls(name, model.eval(), processor)
        if dtype not in ("auto", "float32"):
            try_out(runner, dtype)
        if runner.dtype in QUANTIZED:
            give_back_freed()  # every layer was there in larger formats first
        return runner

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns what prepares the model's inputs."""
        return cls.auto_processor.from_pretrained(path, **kwargs)

    @classmethod
    def load_model(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the model."""
        return cls.auto_model.from_pretrained(path, **kwargs)

    @property
    def media(self) -> JsonObject:
        """What the model wants of media, for its handler's `media_wishes`: `sampling_rate`, `num_frames` …"""
        return {}

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns `{"response": …, "metadata": …, "warnings": […]}`, which the task's handler turns into a result."""
        raise NotImplementedError

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Returns what inputs of equal options must have in common to be run together; None: this one runs alone."""
        return None

    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Returns for each input what `run` returns or raises for it alone.

        Raises `CancelledError` once nobody waits for any of them, and whatever else is no input's own fault.
        """
        return [attempted(self.run, each, options) for each in inputs]

    def warm_up(self) -> None:
        """Runs the model once, so that its first request finds weights and code in memory."""

    def release(self) -> None:
        """Drops the weights."""
        self.model = None

    def parameter_bytes(self) -> int:
        """Returns the bytes of the weights, tied ones once."""
        held = [*self.model.parameters(), *self.model.buffers(), *scales(self.model)]
        tensors = {tensor.data_ptr(): tensor for tensor in held}
        return sum(tensor.nbytes for tensor in tensors.values())

    def to_device(self, encoded: Any) -> dict[str, Any]:
        """Returns a processor's output on the model's device, its floats in the model's number format."""
        return {name: self._moved(value) for name, value in encoded.items() if value is not None}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(self.device, self.model.dtype) if value.is_floating_point() else value.to(self.device)
