"""Names in the registry: documented names, the names that MLflow stores, and references to versions.

MLflow refuses `/` and `:` in a name and cannot search for `"`: they are stored percent-escaped, and so
is `%` itself, so that every documented name comes back as it went in.
"""

import posixpath
import unicodedata
from dataclasses import dataclass

from src.core.errors import InvalidInputError

MAX_STORED_LENGTH = 256  # MLflow's column registered_models.name

_ESCAPES = {"%": "%25", ":": "%3A", "/": "%2F", '"': "%22"}  # `%` first, so that no escape is escaped
_REFUSED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line separators


@dataclass(frozen=True, slots=True)
class Reference:
    """What a `model_name` asks for: a name alone, `name@alias`, or `name@version` (digits only)."""

    name: str
    alias: str | None = None
    version: str | None = None


def parse_reference(text: str) -> Reference:
    """Returns the parts of `name`, `name@alias` or `name@version`; raises `InvalidInputError`."""
    name, at, selector = text.partition("@")
    check_name(name)
    if not at:
        return Reference(name)
    if not selector or "@" in selector or len(selector) > MAX_STORED_LENGTH or not _is_clean(selector):
        raise InvalidInputError(f"Model reference {text[:300]!r} is none: write name, name@alias or name@version")
    if selector.isascii() and selector.isdigit():
        return Reference(name, version=selector.lstrip("0") or "0")
    return Reference(name, alias=selector)


def check_name(name: str) -> str:
    """Returns a documented name as it is; raises `InvalidInputError` for one that cannot be registered."""
    if not name.strip():
        raise InvalidInputError("A model name cannot be empty")
    if "@" in name:
        raise InvalidInputError(f"Model name {name[:300]!r} contains '@', which separates a name from its version")
    if name != name.strip() or not _is_clean(name):
        raise InvalidInputError(f"Model name {name[:300]!r} begins or ends with a space, or has control characters")
    if len(_escaped(name)) > MAX_STORED_LENGTH:
        raise InvalidInputError(f"Model name '{name[:60]}…' is too long: at most {MAX_STORED_LENGTH} characters")
    if name == "." or posixpath.normpath(_escaped(name)).startswith(".."):
        raise InvalidInputError(f"Model name {name!r} cannot begin with '..' or be '.'")
    return name


def stored_name(name: str) -> str:
    """Returns the name under which MLflow stores a documented name."""
    return _escaped(name)


def documented_name(stored: str) -> str:
    """Returns the documented name of a stored one; a name that is no escape of anything stays as it is."""
    name = stored
    for character, escape in reversed(_ESCAPES.items()):
        name = name.replace(escape, character)
    return name if _escaped(name) == stored else stored


def stored_candidates(name: str) -> tuple[str, ...]:
    """Returns the stored names that a documented one may have, the likeliest first.

    The second is for what others registered with MLflow's own client, unescaped.
    """
    escaped = _escaped(name)
    return (escaped,) if escaped == name or "/" in name or ":" in name else (escaped, name)


def _escaped(name: str) -> str:
    for character, escape in _ESCAPES.items():
        name = name.replace(character, escape)
    return name


def _is_clean(text: str) -> bool:
    return not any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in text)
