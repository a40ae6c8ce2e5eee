"""TransformersEngine: loads a model folder for a task and runs it. Imports torch only when it loads."""

import importlib
import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from src.core.config import load_settings
from src.core.errors import CancelledError, InvalidInputError, ModelLoadError
from src.core.settings_sections import TransformersSettings
from src.inference.engines.base import BaseEngine, Scheduler
from src.inference.engines.transformers import families
from src.inference.engines.transformers.attempts import attempted
from src.inference.options import TransformersOptions
from src.inference.quantization import QUANTIZED
from src.inference.types import JsonObject

_WEIGHTS = (".safetensors", ".bin")


class TaskRunner(Protocol):
    """A loaded model that can do one task."""

    name: str
    device: str
    dtype: str

    @property
    def media(self) -> JsonObject:
        """What the model wants of media, for its handler's `media_wishes`."""
        ...

    def run(self, inputs: Any, options: JsonObject) -> Any:
        """Returns the raw answer that the task's handler turns into a result."""
        ...

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Returns what inputs must have in common to be run together; None: this one runs alone."""
        ...

    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[Any]:
        """Returns for each input its raw answer, or the exception that it alone meets."""
        ...

    def parameter_bytes(self) -> int:
        """Returns the bytes of the weights in memory."""
        ...

    def warm_up(self) -> None:
        """Runs the model once, so that its first request finds weights and code in memory."""
        ...

    def release(self) -> None:
        """Drops the weights."""
        ...


class TransformersEngine(BaseEngine):
    """Serves model folders in the Hugging Face layout.

    `config`: `device`, `torch_dtype`, `trust_remote_code`, `trusted_models`, `cache_dir`; what is left
    out comes from the settings.
    """

    name = "transformers"
    needs_registered_model = True
    options_schema = TransformersOptions

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        given = config or {}
        if not TransformersSettings.model_fields.keys() <= given.keys():
            given = {**load_settings().transformers.model_dump(), **given}
        super().__init__(given)
        self.supported_tasks = list(families.RUNNERS)
        self.is_initialized = True

    def load_model(self, model_name: str, **kwargs: Any) -> TaskRunner:
        """Returns the model below `model_path`, loaded for `task` onto `device` in `dtype`.

        Raises `ModelLoadError` where the folder holds no model that this engine can load for the task.
        """
        if not kwargs.get("model_path"):
            raise FileNotFoundError(
                f"Model '{model_name}' is registered without files in the version store: register a commit of it"
            )
        path = Path(kwargs["model_path"])
        if not (path / "config.json").is_file():
            raise ModelLoadError(f"Model '{model_name}': its files hold no config.json, so it is no Transformers model")
        module_name, _, class_name = self._runner_for(kwargs.get("task") or "", path).partition(":")
        load = getattr(importlib.import_module(module_name), class_name).load
        runner: TaskRunner = load(
            model_name,
            path,
            device=kwargs.get("device") or self.config["device"],
            dtype=kwargs.get("dtype") or self.config["torch_dtype"],
            trust_remote_code=self.trusts(model_name),
        )
        return runner

    def warm_up(self, model: TaskRunner) -> None:
        """Runs the model once."""
        model.warm_up()

    def infer(self, model: TaskRunner, inputs: Any, options: JsonObject) -> Any:
        """Runs the model on what its handler prepared."""
        return self._noted(model, model.run(inputs, options), options)

    def batch_key(self, model: TaskRunner, inputs: Any, options: JsonObject) -> Hashable | None:
        """Returns what inputs of equal options must have in common to be run together; None: this one runs alone."""
        return model.batch_key(inputs, options)

    def infer_batch(self, model: TaskRunner, batch: Sequence[Any], options: JsonObject) -> list[Any]:
        """Runs inputs of one batch key together; the answer of one that fails by itself is its exception."""
        try:
            raws = model.run_batch(batch, options)
        except CancelledError:
            raise
        except Exception:
            # Out of memory, or something that a library does not do in batches: alone each has its own fate.
            self.logger.warning("model '%s': a batch of %d failed", model.name, len(batch), exc_info=True)
            raws = [attempted(model.run, inputs, options) for inputs in batch]
        return [raw if isinstance(raw, Exception) else self._noted(model, raw, options) for raw in raws]

    def scheduler(self, model: TaskRunner) -> Scheduler | None:
        """Returns what runs a loaded model's requests step by step; None for runners that have nothing of the kind."""
        make = getattr(model, "scheduler", None)
        scheduler: Scheduler | None = None if make is None else make(partial(self._noted, model))
        return scheduler

    def _noted(self, model: TaskRunner, raw: Any, options: JsonObject) -> Any:
        trusted, wanted = self.trusts(model.name), options.get("trust_remote_code")
        if wanted is not None and wanted != trusted:
            state = "among" if trusted else "not among"
            raw.setdefault("warnings", []).append(
                f"option 'trust_remote_code' has no effect: the model is {state} transformers.trusted_models"
            )
        return raw

    def unload_model(self, model: Any) -> bool:
        """Drops the weights; True if there were any."""
        if model is None:
            return False
        model.release()
        return True

    def describe(self, model: TaskRunner) -> JsonObject:
        """Returns `device`, `dtype` and `parameter_bytes` of a loaded model, and what it wants of `media`."""
        return {
            "device": model.device,
            "dtype": model.dtype,
            "parameter_bytes": model.parameter_bytes(),
            "media": model.media,
        }

    def check_options(self, options: JsonObject) -> None:
        """Refuses a number format that no model can be loaded in here."""
        wanted = options.get("dtype") or options.get("torch_dtype")
        if wanted in QUANTIZED and find_spec("bitsandbytes") is None:
            raise InvalidInputError(
                f"torch_dtype '{wanted}' needs the package bitsandbytes, which is not installed: "
                "take auto, float32, bfloat16 or float16",
                details={"dtypes": ["auto", "float32", "bfloat16", "float16"]},
            )

    def trusts(self, model_name: str) -> bool:
        """Whether a model's own code may run."""
        return bool(self.config["trust_remote_code"]) and model_name in self.config["trusted_models"]

    def tasks_for(self, path: Path) -> list[str] | None:
        """Returns the tasks that the architecture named in `config.json` can do here."""
        architectures = _architectures(path)
        return families.tasks_of(architectures) if architectures else None

    def refusal(self, path: Path, task: str) -> str | None:
        """Returns what a folder lacks to be a Transformers model for the task."""
        if not (path / "config.json").is_file():
            found = ", ".join(sorted(file.name for file in path.iterdir())[:5])
            return f"it has no config.json at its root (there: {found or 'nothing'})"
        if not _config(path):
            return "its config.json is no JSON object"
        if not any(file.suffix in _WEIGHTS for file in path.iterdir()):
            return f"it has no weights ({', '.join(_WEIGHTS)})"
        architectures = _architectures(path)
        if not architectures:
            return "its config.json names no architectures"
        able = self.tasks_for(path) or []
        if task not in able:
            return f"{', '.join(architectures)} can do " + (", ".join(able) or "no task of this version")
        return None

    def preload_modules(self, paths: Sequence[Path]) -> list[str]:
        """Returns the library, the runners and the modelling code of each model's type."""
        tasks = {task for path in paths for task in self.tasks_for(path) or []} or {"text-generation"}
        kinds = {_model_type(path) for path in paths} - {None}
        return [
            *families.runner_modules(tasks),
            *(f"transformers.models.{kind}.modeling_{kind}" for kind in sorted(map(str, kinds))),
            "src.inference.engines.transformers.forerunner",
        ]

    def version(self) -> str | None:
        """Returns the version of the transformers package."""
        return _installed_version()

    def _runner_for(self, task: str, path: Path) -> str:
        architectures = _architectures(path)
        # A task of somebody's own handler: the architecture tells how to run it.
        tasks = [task] if task in families.RUNNERS else families.tasks_of(architectures)
        for possible in tasks:
            if found := families.runner_for(possible, architectures):
                return found
        raise InvalidInputError(
            f"engine 'transformers' cannot run task '{task}' with architectures {architectures}",
            details={"supported_tasks": self.supported_tasks, "architecture_tasks": families.tasks_of(architectures)},
        )


@cache
def _installed_version() -> str | None:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None


def _config(path: Path) -> JsonObject:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _model_type(path: Path) -> str | None:
    found = _config(path).get("model_type")
    return found.replace("-", "_") if isinstance(found, str) else None


def _architectures(path: Path) -> list[str]:
    found = _config(path).get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []
