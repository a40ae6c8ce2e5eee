"""MlflowBackend: what the registry client asks of MLflow, normalised, errors translated; importing it imports MLflow.

In-process stores give versions as int and run ids of None where a server gives `"1"` and `""`; searches
may leave aliases out. Everything leaves this module as our own types and our own errors.
"""

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException, RestException

from src.core.errors import ConflictError, InvalidInputError, NotFoundError, PlatformError, RegistryUnavailableError
from src.core.registry.address import is_database, masked, without_credentials
from src.core.registry.names import documented_name
from src.core.registry.stores import open_store
from src.core.registry.versions import RegisteredModel, RegisteredVersion

_PAGE = 1000
_MAX_NAMES = 10_000
_LONGEST_REASON = 300
_MEANINGS: dict[str, type[PlatformError]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFoundError,
    "RESOURCE_ALREADY_EXISTS": ConflictError,
    "INVALID_PARAMETER_VALUE": InvalidInputError,
}

# A locked or absent database is ours to report: MLflow would log the traceback of each, and each migration step.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("mlflow.store.model_registry.sqlalchemy_store").setLevel(logging.WARNING)
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


class MlflowBackend:
    """One open registry. Every method blocks, and may be called from any thread.

    Raises `NotFoundError`, `ConflictError` and `InvalidInputError` for what MLflow answers, and
    `RegistryUnavailableError` for everything that keeps it from answering.
    """

    def __init__(self, uri: str, *, timeout: float) -> None:
        self._uri = uri
        with self._translated():
            self._store = open_store(uri, timeout=timeout)

    def names(self) -> list[str]:
        """Returns the documented names of the registered models."""
        models = self._pages("search_registered_models", None, None, limit=_MAX_NAMES)
        return [documented_name(model.name) for model in models]

    def ping(self) -> None:
        """Asks for next to nothing."""
        with self._translated():
            self._store.search_registered_models(None, 1, None, None)

    def read(self, stored: str) -> RegisteredModel | None:
        """Returns a model with all its versions; None where there is none."""
        try:
            with self._translated():
                found = self._store.get_registered_model(stored)
        except NotFoundError:
            return None
        versions = list(self._pages("search_model_versions", _by_name(stored), ["version_number DESC"]))
        return _model(found, [_version(version) for version in versions])

    def read_all(self) -> list[RegisteredModel]:
        """Returns every model with all its versions, sorted by name."""
        by_name: dict[str, list[RegisteredVersion]] = {}
        for version in self._pages("search_model_versions", None, None):
            by_name.setdefault(version.name, []).append(_version(version))
        models = [
            _model(found, by_name.get(found.name, [])) for found in self._pages("search_registered_models", None, None)
        ]
        return sorted(models, key=lambda model: model.name)

    def create_model(self, stored: str) -> bool:
        """Creates a registered model; returns False where it exists already."""
        try:
            with self._translated():
                self._store.create_registered_model(stored, None, None)
        except ConflictError:
            return False
        return True

    def create_version(self, stored: str, source: str, tags: Mapping[str, str], description: str) -> RegisteredVersion:
        """Creates a version with its tags, all in one step."""
        entities = [ModelVersionTag(key, value) for key, value in tags.items()]
        with self._translated():
            return _version(self._store.create_model_version(stored, source, None, entities, None, description or None))

    def set_tag(self, stored: str, version: str, key: str, value: str | None) -> None:
        """Sets a version's tag; None removes it."""
        with self._translated():
            if value is None:
                self._store.delete_model_version_tag(stored, version, key)
            else:
                tag = ModelVersionTag(key, value)
                self._store.set_model_version_tag(stored, version, tag)

    def set_alias(self, stored: str, alias: str, version: str | None) -> None:
        """Points an alias at a version; None removes it."""
        with self._translated():
            if version is None:
                self._store.delete_registered_model_alias(stored, alias)
            else:
                self._store.set_registered_model_alias(stored, alias, version)

    def delete_version(self, stored: str, version: str) -> None:
        """Deletes a version; MLflow deletes the aliases that name it, and never gives its number again."""
        with self._translated():
            self._store.delete_model_version(stored, version)

    def delete_model(self, stored: str) -> None:
        """Deletes a registered model with whatever versions it has."""
        with self._translated():
            self._store.delete_registered_model(stored)

    def close(self) -> None:
        """Closes the connections that are kept open."""
        engine = getattr(self._store, "engine", None)
        if engine is not None:
            engine.dispose()

    def _pages(
        self, search: str, filter_string: str | None, order_by: list[str] | None, *, limit: int | None = None
    ) -> Iterator[Any]:
        token, count = None, 0
        while True:
            with self._translated():
                page = getattr(self._store, search)(filter_string, _PAGE, order_by, token)
            yield from page
            token, count = page.token, count + len(page)
            if not token or (limit is not None and count >= limit):
                return

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PlatformError:
            raise
        except Exception as exc:
            raise self._meaning(exc) from exc

    def _meaning(self, error: Exception) -> PlatformError:
        answered = isinstance(error, RestException) or (isinstance(error, MlflowException) and is_database(self._uri))
        if answered and (meaning := _MEANINGS.get(getattr(error, "error_code", ""))):
            return meaning(f"MLflow: {self._reason(error)}")
        address, reason = without_credentials(self._uri), self._reason(_root(error))
        return RegistryUnavailableError(f"The model registry at {address} cannot be reached: {reason}")

    def _reason(self, error: BaseException) -> str:
        return _first_line(masked(str(error), self._uri))


def _by_name(stored: str) -> str:
    quote = "'" if '"' in stored else '"'
    return f"name = {quote}{stored}{quote}"


def _model(found: Any, versions: list[RegisteredVersion]) -> RegisteredModel:
    aliases = {str(alias): str(version) for alias, version in dict(found.aliases or {}).items()}
    return RegisteredModel.of(documented_name(found.name), found.name, versions, aliases)


def _version(found: Any) -> RegisteredVersion:
    return RegisteredVersion(
        name=documented_name(found.name),
        version=str(found.version),
        source=found.source or "",
        tags={str(key): str(value) for key, value in dict(found.tags or {}).items()},
        description=found.description or "",
        created_at=(found.creation_timestamp or 0) / 1000,
        updated_at=(found.last_updated_timestamp or 0) / 1000,
        status=str(found.status or "READY"),
    )


def _root(error: BaseException) -> BaseException:
    """Returns the system's or sqlite's own error where one lies beneath; MLflow's and urllib3's words are long."""
    deepest = error
    while (beneath := deepest.__cause__ or deepest.__context__) is not None:
        deepest = beneath
    return deepest if isinstance(deepest, (OSError, sqlite3.Error)) else error


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"
