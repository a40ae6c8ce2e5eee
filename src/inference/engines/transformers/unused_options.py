"""Which options a task about sound leaves unused, so that its answer can say so."""

from src.inference.engines.transformers.generation import EXACT
from src.inference.options import CommonOptions, TransformersOptions, default_of
from src.inference.types import JsonObject

_ELSEWHERE = ("num_frames", "fps", "pages")
_SAMPLING = ("temperature", "top_p", "top_k")
_SPEECH = ("language", "task", "return_timestamps", "logprobs")
# What the service itself heeds, whatever the task.
_SERVICE = ("timeout", "stream", "seed")
GENERATION = tuple(name for name in CommonOptions.model_fields if name not in _SERVICE)
"""Options that are about generating tokens."""


def unused_by_classification(options: JsonObject) -> list[str]:
    """Returns the options set that a classifier leaves unused."""
    names = [name for name in (*GENERATION, *_SPEECH, *_ELSEWHERE) if name != "top_k"]
    return [name for name in names if _is_set(options, name)]


def unused_by_speech(options: JsonObject, *, generates: bool, more: tuple[str, ...] = ()) -> list[str]:
    """Returns the options set that speech recognition leaves unused; `generates`: it draws token after token."""
    names = [*_ELSEWHERE, *more, "stop", "num_return_sequences"]
    if not generates:
        names += [name for name in GENERATION if name not in names]
    elif not options.get("do_sample", EXACT["do_sample"]):
        names += _SAMPLING
    return [name for name in dict.fromkeys(names) if _is_set(options, name)]


def _is_set(options: JsonObject, name: str) -> bool:
    return name in options and options[name] not in (False, default_of(TransformersOptions, name))
