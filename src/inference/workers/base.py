"""What a worker is: it starts, loads one model, infers, unloads, and its death is noticed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from src.core.errors import PlatformError
from src.inference.types import JsonObject, OnDelta


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """Everything a worker needs to load one model; classes stand as `module:qualified name`.

    `warm`: the engine gets the model ready for its first request before the load counts as done.
    """

    engine: str
    engine_config: Mapping[str, Any]
    handler: str
    task: str
    model_name: str
    model_path: str | None
    device: str | None
    dtype: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    warm: bool = False

    def as_json(self) -> JsonObject:
        """Returns the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a worker says of the model that it has loaded; `parameter_bytes` is None where unknown.

    `seconds`: how long the engine itself took to load it; `media`: what the model wants of media; `at_once`: how many
    requests can be under way together, step by step.
    """

    device: str | None
    dtype: str | None
    engine_version: str | None
    parameter_bytes: int | None = None
    seconds: float | None = None
    media: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = 1


class WorkerAnswer(NamedTuple):
    """One result, with the warnings that came up on the way."""

    result: JsonObject
    warnings: list[str]


DeathListener = Callable[[PlatformError], None]


class Worker(Protocol):
    """A loaded model that answers, wherever it runs."""

    report: LoadReport

    @property
    def pid(self) -> int:
        """The process that it runs in."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests given to it and not answered yet."""
        ...

    async def load(self, spec: LoadSpec, on_death: DeathListener) -> None:
        """Starts and loads; raises what went wrong. `on_death` is called once if it ends unasked."""
        ...

    async def infer(
        self,
        data: Any,
        options: JsonObject,
        timeout: float | None = None,
        *,
        on_delta: OnDelta | None = None,
        priority: int = 0,
    ) -> WorkerAnswer:
        """Answers one request; cancelling the call, or `timeout` seconds passing, stops the work within one step.

        `on_delta` is called with each piece of text as it comes; of two that wait, that of higher priority goes first.
        """
        ...

    async def unload(self) -> None:
        """Lets the model and its memory go; requests still inside fail as retryable."""
        ...

    async def post_mortem(self) -> str | None:
        """Returns how a dead worker ended, once that is known; None where nothing more is known."""
        ...

    def memory_bytes(self) -> int | None:
        """Returns the memory that is its own, in bytes (PSS of its process); None where unknown."""
        ...
