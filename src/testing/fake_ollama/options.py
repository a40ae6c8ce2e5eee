"""The `options` of a request: Ollama's names, types and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.testing.fake_ollama.errors import ApiError

_SAMPLING: dict[str, Any] = {
    "seed": -1,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
# A change of one of these makes Ollama start the runner anew.
_RUNNER: dict[str, Any] = {
    "num_ctx": 4096,
    "num_batch": 512,
    "num_gpu": -1,
    "main_gpu": 0,
    "use_mmap": None,
    "num_thread": 0,
}
_OTHER: dict[str, Any] = {"num_keep": 4, "num_predict": -1, "stop": ()}
_DEFAULTS: dict[str, Any] = {**_SAMPLING, **_RUNNER, **_OTHER}
_PENALTIES = ("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class Options:
    """The options in force for one request: the request's over the model's over the defaults."""

    values: Mapping[str, Any]

    @classmethod
    def resolve(cls, of_model: Mapping[str, Any], of_request: Mapping[str, Any]) -> "Options":
        """Raises `ApiError` 500 for a wrong type; a name that Ollama does not know is ignored in silence."""
        merged = {**_DEFAULTS, **_known(of_model), **_known(of_request)}
        return cls(merged)

    @property
    def num_ctx(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self.values["num_ctx"])

    @property
    def num_predict(self) -> int | None:
        """Tokens of the answer at most; None: until the model ends it."""
        limit = int(self.values["num_predict"])
        return limit if limit > 0 else None

    @property
    def stop(self) -> tuple[str, ...]:
        """Words before which the answer ends."""
        return tuple(word for word in self.values["stop"] if word)

    @property
    def runner(self) -> tuple[Any, ...]:
        """What a runner is started with."""
        return tuple(self.values[name] for name in _RUNNER)

    @property
    def sampling(self) -> dict[str, Any]:
        """What the choice of tokens depends on; at temperature 0 nothing is drawn, so only the penalties."""
        names = _SAMPLING if self.values["temperature"] > 0 else _PENALTIES
        return {name: self.values[name] for name in names}


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in options.items() if name in _DEFAULTS and value is not None}
    for name, value in known.items():
        if not isinstance(value, bool) and isinstance(value, float) and isinstance(_DEFAULTS[name], int):
            known[name] = int(value)
        if wanted := _wanted_instead(name, value):
            raise ApiError(500, f'option "{name}" must be of type {wanted}')
    return known


def _wanted_instead(name: str, value: Any) -> str | None:
    """Returns the type that an option has to have where `value` has another."""
    if name == "use_mmap":
        return None if isinstance(value, bool) else "boolean"
    if name == "stop":
        fits = isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
        return None if fits else "array"
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return None if fits else "integer" if isinstance(_DEFAULTS[name], int) else "float32"
