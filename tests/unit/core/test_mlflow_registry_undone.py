"""A registration or transition that fails midway leaves nothing behind."""

from collections.abc import Mapping
from typing import Any

import pytest

from src.core.errors import ModelNotFoundError, RegistryUnavailableError
from src.core.mlflow_registry import MlflowRegistry, RegisteredVersion

SOURCE = "lakefs://repo/0123abcd/"


def add(registry: MlflowRegistry, name: str, stage: str | None = None, **tags: str) -> RegisteredVersion:
    return registry.register(name, source=SOURCE, tags=tags, stage=stage)


class Breaking:
    """The real backend, of which one operation fails after so many calls."""

    def __init__(self, backend: Any, operation: str, after: int = 0) -> None:
        self._backend, self._operation, self._left = backend, operation, after

    def __getattr__(self, operation: str) -> Any:
        if operation == self._operation:
            if self._left == 0:
                self._operation = ""  # what is taken back works again
                raise RegistryUnavailableError("gone")
            self._left -= 1
        return getattr(self._backend, operation)


def _move_on(backend: Any, name: str) -> None:
    from src.core.registry.writes import move

    move(backend, name, "2", "production", archive_others=True)


def _register_on(backend: Any, name: str, tags: Mapping[str, str]) -> None:
    from src.core.registry.writes import register

    register(backend, name, source=SOURCE, tags=tags, description="", stage="production", first=True)


@pytest.mark.parametrize(
    ("operation", "existing"),
    [("create_version", 0), ("create_version", 1), ("set_alias", 0), ("set_alias", 1), ("set_tag", 1)],
)
def test_a_half_registration_is_taken_back(registry: MlflowRegistry, name: str, operation: str, existing: int) -> None:
    for _ in range(existing):
        registry.register(name, source=SOURCE, tags={}, stage="production", set_priority_to_one=True)
    before = registry.versions(name) if existing else None

    with pytest.raises(RegistryUnavailableError, match="gone"):
        registry._connection.write(lambda backend: _register_on(Breaking(backend, operation), name, {}))
    registry._connection._barred_until = 0.0

    if before is None:
        with pytest.raises(ModelNotFoundError, match=r"^Model '.*' not found in MLflow(; did|$)"):
            registry.versions(name)
    else:
        assert [(v.version, v.aliases, dict(v.tags)) for v in registry.versions(name)] == [
            (v.version, v.aliases, dict(v.tags)) for v in before
        ]


def test_a_half_transition_is_taken_back(registry: MlflowRegistry, name: str) -> None:
    add(registry, name, "production")
    add(registry, name, "staging")
    before = registry.versions(name)

    with pytest.raises(RegistryUnavailableError, match="gone"):
        registry._connection.write(lambda backend: _move_on(Breaking(backend, "set_alias", 1), name))
    registry._connection._barred_until = 0.0

    assert [(v.aliases, v.tags) for v in registry.versions(name)] == [(v.aliases, v.tags) for v in before]
