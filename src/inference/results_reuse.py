"""What of a request makes its result one to keep: it is asked for, nothing in it is random, and content names it."""

from dataclasses import dataclass, field
from typing import Any

from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler
from src.inference.results import ResultCache
from src.inference.results_key import ResultOf, UnkeyableError, result_key
from src.inference.types import JsonObject

OPTION = "cache"


@dataclass(frozen=True, slots=True)
class KeptResult:
    """An answer as it is kept: the result, the warnings of the engine, and where it was computed."""

    result: JsonObject
    warnings: list[str] = field(default_factory=list)
    engine_version: str | None = None
    device: str | None = None
    dtype: str | None = None

    def as_json(self) -> JsonObject:
        """Returns the fields as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Any) -> "KeptResult | None":
        """Returns what `as_json` wrote; None for anything else, which may lie in a Redis that others use too."""
        if not isinstance(value, dict) or value.keys() != set(cls.__slots__):
            return None
        texts = (value["engine_version"], value["device"], value["dtype"])
        warnings = value["warnings"]
        is_ours = (
            isinstance(value["result"], dict)
            and isinstance(warnings, list)
            and all(isinstance(warning, str) for warning in warnings)
            and all(text is None or isinstance(text, str) for text in texts)
        )
        return cls(**value) if is_ours else None


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the cache has for one request: `found`, else the place where `keep` puts the answer. Empty: nothing is kept.

    `digest`: of the content that answers; `warnings`: why a caller who asked for it gets no kept result.
    """

    cache: ResultCache | None = None
    key: str | None = None
    digest: str | None = None
    found: KeptResult | None = None
    warnings: tuple[str, ...] = ()

    async def keep(self, kept: KeptResult) -> None:
        """Keeps the answer that was computed; does nothing where it is not to be."""
        if self.cache is not None and self.key is not None:
            await self.cache.put(self.key, kept.as_json())


class ResultReuse:
    """Looks results up for requests that want that."""

    def __init__(self, cache: ResultCache) -> None:
        self._cache = cache

    @staticmethod
    def wanted(options: JsonObject, handler: type[BaseModelHandler], by_model: bool | None) -> bool:
        """Whether a request's result may be kept at all: as its option says, else as its model has it.

        False for a handler that does not say when it is deterministic: then `cache` is an option of its own.
        """
        asked = options.get(OPTION)
        return (asked if isinstance(asked, bool) else bool(by_model)) and _speaks(handler)

    async def look_up(
        self,
        made_by: ResultOf,
        data: JsonObject,
        options: JsonObject,
        handler: type[BaseModelHandler],
        engine: type[BaseEngine],
    ) -> Lookup:
        """Returns what is kept for a request that `wanted` is true of; `data` holds media as they were decoded."""
        reason = refusal(options, handler, engine)
        if reason is None and not made_by.digest:
            reason = "no digest names the content of this model"
        if reason is not None:
            return _refused(options, reason)
        try:
            key = await result_key(made_by, data, options)
        except UnkeyableError as exc:
            return _refused(options, f"the request cannot be recognized again: {exc}")
        found = KeptResult.from_json(await self._cache.get(key))
        return Lookup(self._cache, key, made_by.digest, found)


def refusal(options: JsonObject, handler: type[BaseModelHandler], engine: type[BaseEngine]) -> str | None:
    """Returns why the result of a request is not one to keep; None where it is."""
    if engine.options_schema is None and handler.__module__.startswith("src.inference."):
        return f"engine '{engine.name or engine.__name__}' does not say what its options mean"
    if not handler.deterministic(options):
        return "the answer is drawn at random; set do_sample false, temperature 0 or a seed"
    return None


def _refused(options: JsonObject, reason: str) -> Lookup:
    # Only who asks for it wants to know; what a model is set to holds where it can.
    return Lookup(warnings=(f"option '{OPTION}' has no effect: {reason}",) if options.get(OPTION) else ())


def _speaks(handler: type[BaseModelHandler]) -> bool:
    own: Any = handler.deterministic
    base: Any = BaseModelHandler.deterministic
    return own.__func__ is not base.__func__
