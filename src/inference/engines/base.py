"""What an engine is: it loads a model, runs it and lets it go."""

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from src.core.errors import PlatformError
from src.inference.options import CommonOptions
from src.inference.types import JsonObject, ServableModel, StopCheck


class Scheduler(Protocol):
    """Runs many requests of one loaded model together, step by step: they join and leave between steps."""

    def __len__(self) -> int:
        """Returns how many requests are inside."""
        ...

    def takes(self, inputs: Any, options: JsonObject) -> bool:
        """Whether it can run such a request; the engine's `infer` does where it cannot."""
        ...

    def add(self, key: int, inputs: Any, options: JsonObject, emit: Callable[[str], None] | None) -> None:
        """Takes a request in; raises for bad input. `emit`, if any, is called with each piece of text as it comes."""
        ...

    def step(self) -> list[tuple[int, Any | PlatformError]]:
        """Advances everything inside by one step; returns what has finished: key and raw answer, or error."""
        ...

    def cancel(self, key: int) -> None:
        """Drops a request, if it is inside."""
        ...


class BaseEngine:
    """Base of every engine. A subclass needs `load_model` and `infer`; the rest has working defaults.

    A network engine (one that only waits for a server) overrides `ainfer` and sets `is_network`: it has
    no worker process and lives on the event loop.
    """

    name: ClassVar[str] = ""
    is_network: ClassVar[bool] = False
    needs_registered_model: ClassVar[bool] = False
    """Whether a name that the registry does not know is refused before the engine is asked."""
    options_schema: ClassVar[type[CommonOptions] | None] = None
    """The options that this engine takes; None: whatever the caller sends is passed on as a plain dict."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config: dict[str, Any] = dict(config or {})
        self.supported_tasks: list[str] = []
        self.is_initialized = False
        self.logger = logging.getLogger(type(self).__module__)

    def load_model(self, model_name: str, **kwargs: Any) -> Any:
        """Returns the loaded model; kwargs hold `model_path`, `task`, `device`, `dtype` and the version's tags."""
        raise NotImplementedError(f"{type(self).__name__} does not load models")

    def warm_up(self, model: Any) -> None:
        """Gets a loaded model ready for its first request, before it takes over from another version."""

    def infer(self, model: Any, inputs: Any, options: JsonObject) -> Any:
        """Returns `{"response": …, "metadata": …}` or a plain value; long work asks `stop_requested()`."""
        raise NotImplementedError(f"{type(self).__name__} does not infer")

    def infer_batch(self, model: Any, batch: Sequence[Any], options: JsonObject) -> list[Any]:
        """Runs several inputs that share their options; engines that can do better override it."""
        return [self.infer(model, inputs, options) for inputs in batch]

    def batch_key(self, model: Any, inputs: Any, options: JsonObject) -> Hashable | None:
        """Returns what inputs must have in common to be given to `infer_batch` together; None: this one runs alone."""
        return ()

    def stream(self, model: Any, inputs: Any, options: JsonObject) -> Iterator[Any]:
        """Yields pieces of text as `Delta`s, and last the raw answer that `infer` would have returned.

        An engine whose `infer` calls `emit` needs none.
        """
        yield self.infer(model, inputs, options)

    def scheduler(self, model: Any) -> Scheduler | None:
        """Returns what runs a loaded model's requests together, step by step; None where nothing does."""
        return None

    def unload_model(self, model: Any) -> bool:
        """Lets a loaded model go; True if it held anything."""
        return model is not None

    async def ainfer(self, model: ServableModel, inputs: Any, options: JsonObject) -> Any:
        """Like `infer`, awaited on the event loop; network engines only."""
        raise NotImplementedError(f"{type(self).__name__} is not a network engine")

    async def astream(self, model: ServableModel, inputs: Any, options: JsonObject) -> AsyncGenerator[Any, None]:
        """Like `stream`, awaited on the event loop; network engines only."""
        yield await self.ainfer(model, inputs, options)

    async def aready(self, model: ServableModel) -> None:
        """Has a network engine's server fetch what a model needs; the default timeout does not count it."""

    async def lists(self, name: str) -> bool:
        """Whether a network engine's server has a model of this name that nobody registered."""
        return False

    async def content_digest(self, model: ServableModel) -> str | None:
        """Returns the digest of what a network engine's server has under a model's name now; None: it cannot tell."""
        return None

    async def ping(self) -> None:
        """Raises an `EngineUnavailableError` where a network engine's server does not answer."""

    async def aclose(self) -> None:
        """Closes what a network engine holds open."""

    def check_options(self, options: JsonObject) -> None:
        """Raises `InvalidInputError` for options that could only fail once a model is loaded."""

    def describe(self, model: Any) -> JsonObject:
        """Returns what is known of a loaded model: `device`, `dtype` (texts or None), what it wants of `media`."""
        return {"device": self.config.get("device"), "dtype": None}

    def tasks_for(self, path: Path) -> list[str] | None:
        """Returns the tasks that the model files below `path` can do; None when the engine cannot tell."""
        return None

    def refusal(self, path: Path, task: str) -> str | None:
        """Returns why the model files below `path` are nothing for a task; None where they are, or nobody can tell."""
        able = self.tasks_for(path)
        if able is None or task in able:
            return None
        return f"its architecture can do {', '.join(able)}" if able else "its architecture is not known here"

    def preload_modules(self, paths: Sequence[Path]) -> list[str]:
        """Returns the modules that workers of this engine want imported before they are forked, for these models."""
        return []

    def version(self) -> str | None:
        """Returns the version of the software that runs the models; None when it has none."""
        return None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text that an answer goes on with."""

    text: str


_emit: ContextVar[Callable[[str], None] | None] = ContextVar("aiml_emit", default=None)


def emit(text: str) -> None:
    """Hands a piece of the answer to whoever streams the running inference; does nothing where nobody does."""
    listener = _emit.get()
    if listener is not None and text:
        listener(text)


def is_streamed() -> bool:
    """Whether somebody takes what `emit` is given."""
    return _emit.get() is not None


@contextmanager
def emitting(listener: Callable[[str], None] | None) -> Iterator[None]:
    """Makes `emit` call `listener` inside the block."""
    token = _emit.set(listener)
    try:
        yield
    finally:
        _emit.reset(token)


_stop: ContextVar[StopCheck | None] = ContextVar("aiml_stop", default=None)


def stop_requested() -> bool:
    """Whether the caller of the running inference has gone, or its time has passed."""
    check = _stop.get()
    return check is not None and check()


@contextmanager
def stoppable(check: StopCheck) -> Iterator[None]:
    """Makes `stop_requested` ask `check` inside the block."""
    token = _stop.set(check)
    try:
        yield
    finally:
        _stop.reset(token)


class StopFlag:
    """A stop that one thread asks for and another notices."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def __call__(self) -> bool:
        return self._event.is_set()
