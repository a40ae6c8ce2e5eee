"""What a request is served with: a model under its key, its settings, and the provenance of its answers."""

from dataclasses import dataclass
from typing import Any

from src.core.settings_sections import ModelSettings
from src.inference.cache import ModelKey
from src.inference.models.base import BaseModelHandler
from src.inference.types import JsonObject, Provenance, ServableModel
from src.inference.workers.base import LoadReport

_FOR_US = frozenset({"timeout", "stream", "queue_priority", "cache"})


@dataclass(slots=True, eq=False)
class Served:
    """What stays the same from one request to the next that asks for a model in the same words."""

    model: ServableModel
    handler_class: type[BaseModelHandler]
    key: ModelKey
    own: ModelSettings
    _report: LoadReport | None = None
    _provenance: Provenance | None = None

    def provenance_by(self, report: LoadReport) -> Provenance:
        """Returns what produces answers, given what the worker says of the model that it has loaded."""
        if self._provenance is None or self._report is not report:
            registered = self.model.registered
            self._report = report
            self._provenance = provenance_of(
                self.model,
                self.key.engine,
                registered.digest if registered else None,
                report.engine_version,
                device=report.device,
                dtype=report.dtype,
            )
        return self._provenance


def provenance_of(
    model: ServableModel, engine: str, digest: str | None, engine_version: str | None, **placed: Any
) -> Provenance:
    """Returns what produced an answer; `placed`: `device` and `dtype`, where they are known."""
    registered = model.registered
    return Provenance(
        registered_name=registered.name if registered else None,
        version=registered.version if registered else None,
        alias=model.alias,
        source=registered.source if registered else None,
        commit=registered.commit if registered else None,
        digest=digest,
        engine=engine,
        engine_version=engine_version,
        ollama_model=(model.tags.get("ollama_model_name") or model.name) if engine == "ollama" else None,
        **placed,
    )


def priority_of(options: JsonObject, own: ModelSettings) -> int:
    """Returns a request's priority: the one that it names, else its model's."""
    asked = options.get("queue_priority")
    return asked if isinstance(asked, int) and -10 <= asked <= 10 else own.queue_priority or 0


def for_engine(options: JsonObject) -> JsonObject:
    """Returns the options that say how to answer: without those that say when, so that more requests are alike."""
    if not _FOR_US.isdisjoint(options):
        return {name: value for name, value in options.items() if name not in _FOR_US}
    return options


def wish(options: JsonObject, name: str) -> str | None:
    """Returns what a request asks of an option; None where it leaves that to others."""
    value = options.get(name)
    return None if value in (None, "auto") else str(value)


def is_ours(cls: type) -> bool:
    """Whether a class is built in."""
    return cls.__module__.startswith("src.inference.")
