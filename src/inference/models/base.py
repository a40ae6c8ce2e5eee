"""What a handler is: it knows a task's input and output, and nothing about engines or processes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from src.core.errors import InvalidInputError
from src.inference.types import JsonObject


@dataclass(frozen=True, slots=True)
class MediaField:
    """A field of `data` that holds media: `many` takes a list of them too."""

    kind: Literal["image", "audio", "video", "document"]
    many: bool = False


class BaseModelHandler:
    """Turns a request's `data` into an engine's inputs, and the engine's raw answer into a result.

    A subclass sets `task`, or is named after it: `CustomTaskHandler` handles `custom-task`.
    """

    task: ClassVar[str] = ""
    required_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of `data` that are checked before a model is loaded for the request."""

    media: ClassVar[Mapping[str, MediaField]] = {}
    """Fields that are fetched and decoded before `preprocess`, which finds there what `as_data` of `src.media.decoded`
    makes of them, or a list of that where `many` is set."""

    @classmethod
    def media_wishes(cls, field: str, options: JsonObject, facts: JsonObject) -> JsonObject:
        """Returns what to ask of a field's decoder (see `src.media.wishes`); `facts`: what the loaded model wants."""
        return {}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether one version answers equal data with these options equally each time; only then a result is kept.

        An engine with options of its own kind is not asked: a handler that says so speaks for the engines it is for.
        """
        return False

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns `{"inputs": …, "options": …}` for the engine; raises ValueError for bad input."""
        self.validate_input(data, self.required_fields)
        return {"inputs": data, "options": options}

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns the `result` of the answer from what the engine gave."""
        return result if isinstance(result, dict) else {"response": result}

    def validate_input(self, data: Any, required: Sequence[str]) -> None:
        """Raises `InvalidInputError` (a ValueError) that names each field missing from `data`."""
        if not isinstance(data, dict):
            raise InvalidInputError(f"Invalid input format: data must be an object, not {type(data).__name__}")
        missing = [name for name in required if data.get(name) is None]
        if missing:
            names = ", ".join(f"'{name}'" for name in missing)
            raise InvalidInputError(
                f"Invalid input format: missing field {names} in data",
                details={"missing_fields": missing, "given_fields": sorted(map(str, data))},
            )

    @classmethod
    def task_name(cls) -> str:
        """Returns the task that this class handles."""
        if cls.task:
            return cls.task
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", cls.__name__.removesuffix("Handler"))
        return "-".join(word.lower() for word in words)


def draws_nothing(options: JsonObject, *, samples: bool) -> bool:
    """Whether generating tokens with these options is repeatable: greedy, or with a seed.

    `samples`: whether the task draws tokens at random where the caller says nothing.
    """
    if options.get("seed") is not None:
        return True
    drawn = options.get("do_sample", samples) and options.get("temperature") != 0
    return not drawn and not options.get("mirostat")


def texts_of(response: str | list[str]) -> list[str]:
    """Returns the texts that an engine generated, one or several."""
    return [response] if isinstance(response, str) else response
