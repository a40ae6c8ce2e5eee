"""What the fake Ollama has on disk: models, the files they share, and files half pulled."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from src.testing.fake_ollama.errors import ApiError, model_missing
from src.testing.fake_ollama.models import FakeModel
from src.testing.fake_ollama.names import ModelName


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model under a name; `modified_at` in nanoseconds since 1970."""

    name: ModelName
    model: FakeModel
    modified_at: int


class Store:
    """Models by name. A file lives as long as a model has it; `partial` counts the bytes of half a file."""

    def __init__(self) -> None:
        self._models: dict[ModelName, StoredModel] = {}
        self.partial: Counter[str] = Counter()

    def put(self, name: ModelName, model: FakeModel) -> StoredModel:
        """Stores a model under a name, in place of any other."""
        stored = StoredModel(name, model, time.time_ns())
        self._models[name] = stored
        return stored

    def find(self, text: str) -> StoredModel:
        """Returns the model that a request names; raises `ApiError` 404, or 400 for a name that cannot be."""
        if not text:
            raise model_missing(text)
        stored = self._models.get(ModelName.parse(text))
        if stored is None:
            raise model_missing(text)
        return stored

    def remove(self, text: str) -> None:
        """Deletes a model; raises like `find`."""
        del self._models[self.find(text).name]

    def newest_first(self) -> list[StoredModel]:
        """Returns every model, the last changed first."""
        return sorted(self._models.values(), key=lambda stored: stored.modified_at, reverse=True)

    def has_file(self, digest: str) -> bool:
        """Whether a file is there, whole."""
        models = list(self._models.values())
        return any(layer.digest == digest for stored in models for layer in stored.model.layers)

    def derive(self, base: StoredModel, name: ModelName, changes: dict[str, Any]) -> list[str]:
        """Stores `base` with `changes` under a new name; returns the lines that `/api/create` reports."""
        changes = {key: value for key, value in changes.items() if value}
        kinds = [layer.kind for layer in base.model.layers[:-1] if layer.kind not in {*changes, "params"}]
        kinds += [kind for kind in ("template", "system", "license") if kind in changes]
        model = derived_model(base, changes)
        by_kind = {layer.kind: layer for layer in model.layers}
        lines = []
        for kind in [*kinds, *(["params"] if "params" in by_kind else [])]:
            known = self.has_file(by_kind[kind].digest)
            lines.append(f"{'using existing' if known else 'creating new'} layer {by_kind[kind].digest}")
        self.put(name, model)
        return lines


def derived_model(base: StoredModel, changes: dict[str, Any]) -> FakeModel:
    """Returns a model built FROM another; a new template decides about tools."""
    model = base.model
    capabilities = model.capabilities
    if template := changes.get("template"):
        capabilities = tuple(kept for kept in capabilities if kept != "tools")
        capabilities += ("tools",) if ".Tools" in template else ()
    return replace(
        model,
        weights_digest=model.weights.digest.removeprefix("sha256:"),
        parent_model=base.name.short,
        capabilities=capabilities,
        template=template or model.template,
        system=changes.get("system", model.system),
        license=changes.get("license", model.license),
        parameters={**model.parameters, **changes.get("parameters", {})},
    )


def source_missing(text: str) -> ApiError:
    """Returns the answer to a copy of nothing, which quotes unlike the others."""
    return ApiError(404, f'model "{text}" not found')
