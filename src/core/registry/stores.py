"""MLflow's registry stores, opened so that no call waits without end; importing this imports MLflow."""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import create_sqlalchemy_engine
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._model_registry.utils import _get_store
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import http_request, verify_rest_response

from src.core.registry.address import is_database, sqlite_path, without_credentials
from src.core.registry.sqlite_guard import busy_seconds, existing_file_uri

_QUICK_FAILURE = 1.0


def open_store(uri: str, *, timeout: float) -> Any:
    """Returns an MLflow registry store (`AbstractStore`) for a tracking URI.

    Databases are opened at once; a server is not talked to before the first call.
    """
    if (path := sqlite_path(uri)) is not None:
        return EngineStore(_sqlite_engine(path))
    if is_database(uri):
        return EngineStore(_server_engine(uri, timeout))
    if uri.startswith(("http://", "https://")):
        return BoundedRestStore(partial(_host_creds, uri), timeout)
    return _get_store(uri, uri)


def create_sqlite_registry(path: Path) -> None:
    """Makes a registry file with MLflow's schema and no models (about 3 s)."""
    sqlite3.connect(path).close()
    engine = _sqlite_engine(path)

    @sqlalchemy.event.listens_for(engine, "connect")
    def _unsynced(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # some 280 commits, worth nothing before the last

    EngineStore(engine)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def dispose_engines(path: Path) -> None:
    """Closes the pooled connections that MLflow's own stores in this process keep to a sqlite file.

    MLflow caches one engine per address and class; a connection of theirs would go on with a deleted file.
    """
    for module in ("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store"):
        store = getattr(sys.modules.get(module), "SqlAlchemyStore", None)
        for engine in list(getattr(store, "_engine_map", {}).values()):
            if engine.url.database and os.path.abspath(engine.url.database) == str(path):
                engine.dispose()


class EngineStore(SqlAlchemyStore):  # type: ignore[misc]
    """MLflow's store on an engine of ours, which neither retries for minutes nor creates files."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine
        super().__init__(engine.url.render_as_string(hide_password=False))

    def _get_or_create_engine(self, db_uri: str) -> sqlalchemy.Engine:
        return self._engine


class BoundedRestStore(RestStore):  # type: ignore[misc]
    """MLflow's REST store with one bounded attempt per call; a read that failed at once is tried again."""

    def __init__(self, host_creds: Callable[[], Any], timeout: float) -> None:
        super().__init__(host_creds)
        self._timeout = timeout

    def _call_endpoint(
        self, api: Any, json_body: str, call_all_endpoints: bool = False, extra_headers: Any = None
    ) -> Any:
        self._validate_workspace_support_if_specified()
        endpoint, method = self._get_endpoint_from_method(api)
        started = time.monotonic()
        try:
            response = self._request(endpoint, method, json.loads(json_body), extra_headers)
        except MlflowException:
            # A kept connection that the server closed meanwhile fails at once.
            if method != "GET" or time.monotonic() - started > _QUICK_FAILURE:
                raise
            response = self._request(endpoint, method, json.loads(json_body), extra_headers)
        message = self._get_response_from_method(api)
        parse_dict(js_dict=json.loads(response.text), message=message)
        return message

    def _request(self, endpoint: str, method: str, body: Any, extra_headers: Any) -> Any:
        timeout = MLFLOW_HTTP_REQUEST_TIMEOUT.get() if MLFLOW_HTTP_REQUEST_TIMEOUT.is_set() else self._timeout
        response = http_request(
            self.get_host_creds(),
            endpoint,
            method,
            max_retries=0,
            timeout=timeout,
            raise_on_status=False,
            extra_headers=extra_headers,
            **{"params" if method == "GET" else "json": body},
        )
        return verify_rest_response(response, endpoint)


def _sqlite_engine(path: Path) -> sqlalchemy.Engine:
    # Without a pool: a kept connection would go on with a file that was replaced.
    url = sqlalchemy.URL.create("sqlite", database=str(path))
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def _never_create(dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> None:
        arguments[0] = existing_file_uri(Path(arguments[0]))
        parameters.update(uri=True, timeout=busy_seconds.get())

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute", retval=True)
    def _wait_shorter(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> tuple[str, Any]:
        if statement.startswith("PRAGMA busy_timeout"):  # MLflow asks for 20 s in every session
            statement = f"PRAGMA busy_timeout = {int(busy_seconds.get() * 1000)}"
        return statement, parameters

    return engine


def _server_engine(uri: str, timeout: float) -> sqlalchemy.Engine:
    engine: sqlalchemy.Engine = create_sqlalchemy_engine(_with_driver(uri))

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def _bounded(dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> None:
        parameters.setdefault("connect_timeout", max(2, round(timeout)))
        if engine.dialect.name == "postgresql":
            parameters.setdefault("tcp_user_timeout", round(timeout * 1000))

    return engine


def _with_driver(uri: str) -> str:
    """Names our driver, psycopg 3, where the address names none: SQLAlchemy's default differs between its versions."""
    return uri.replace("postgresql://", "postgresql+psycopg://", 1) if uri.startswith("postgresql://") else uri


def _host_creds(uri: str) -> Any:
    """Returns MLflow's credentials for a server; those in the address win and leave it, so that no error shows them."""
    credentials = get_default_host_creds(without_credentials(uri))
    parts = urlsplit(uri)
    if parts.username and parts.password:
        credentials.username, credentials.password = unquote(parts.username), unquote(parts.password)
    return credentials
