"""A registry's address: what kind it is, and how it is shown."""

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")


def sqlite_path(uri: str) -> Path | None:
    """Returns the file that a sqlite address names; None for other addresses, and for a database in memory."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    if not uri.startswith(_SQLITE) or path in ("", ":memory:"):
        return None
    return Path(os.path.abspath(path))


def is_database(uri: str) -> bool:
    """Whether an address names a database (`dialect://…` or `dialect+driver://…`), not a server."""
    return urlsplit(uri).scheme.partition("+")[0] in _DATABASES


def without_credentials(uri: str) -> str:
    """Returns an address without user, password and query, fit to be shown."""
    if uri.startswith(_SQLITE):
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def masked(text: str, uri: str) -> str:
    """Returns a foreign text without the address's user and password, wherever they stand in it."""
    userinfo = urlsplit(uri).netloc.rpartition("@")[0]
    for secret in (userinfo, userinfo.partition(":")[2]):
        text = text.replace(secret, "***") if secret else text
    return text
