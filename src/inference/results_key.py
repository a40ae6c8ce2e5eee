"""The key of a result: a digest of everything that decides it, and of nothing else.

It is the sha256 of canonical JSON: keys sorted, no spaces, ASCII, every number as Python writes it, so that 1, 1.0
and true are three things. What JSON lacks is written so that no JSON can look like it: an array as
`<dtype[shape]digest>`, bytes as `<digest>`, a tuple in round brackets.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from src import __version__
from src.core.threads import in_thread
from src.inference.types import JsonObject

_UNKEYED = frozenset({"cache", "queue_priority", "stream", "timeout", "device", "dtype", "torch_dtype"})
"""Options that do not decide what the result is, or stand in `ResultOf`."""
_IN_LOOP_BYTES = 1 << 18
"""More than this is hashed in a thread: a video takes tenths of a second."""
_MOST_DEPTH = 100


class UnkeyableError(ValueError):
    """The data or the options hold something that has no canonical form."""


@dataclass(frozen=True, slots=True)
class ResultOf:
    """What decides a result besides data and options.

    `digest`: of the content of the version, so that another version is another key by itself, None where nothing tells
    it; `model`: the name, which results repeat; `device` and `dtype`: what the caller wishes, else the settings.
    """

    digest: str | None
    model: str
    task: str
    engine: str
    engine_version: str | None
    handler: str
    device: str | None = None
    dtype: str | None = None


async def result_key(made_by: ResultOf, data: JsonObject, options: JsonObject) -> str:
    """Returns the key, 64 hex digits; raises `UnkeyableError` for data or options without a canonical form.

    `data` holds media as they were decoded: what counts is their content, not where they came from.
    """
    if _size(data, 0) > _IN_LOOP_BYTES:
        return await in_thread(lambda: _key(made_by, data, options))
    return _key(made_by, data, options)


def _key(made_by: ResultOf, data: JsonObject, options: JsonObject) -> str:
    whole = {
        "service": __version__,
        "made_by": {field.name: getattr(made_by, field.name) for field in fields(made_by)},
        "data": data,
        "options": {name: value for name, value in options.items() if name not in _UNKEYED},
    }
    return hashlib.sha256(canonical(whole).encode("ascii")).hexdigest()


def canonical(value: Any, depth: int = 0) -> str:
    """Returns the canonical form; raises `UnkeyableError` for what has none."""
    kind = type(value)
    if depth > _MOST_DEPTH:
        raise UnkeyableError("it is nested too deeply")
    if value is None or kind in (bool, int, float, str):
        return _scalar(value)
    if kind is dict:
        pairs = (f"{json.dumps(name)}:{canonical(value[name], depth + 1)}" for name in sorted(_names(value)))
        return f"{{{','.join(pairs)}}}"
    if kind in (list, tuple):
        items = ",".join([canonical(item, depth + 1) for item in value])
        return f"[{items}]" if kind is list else f"({items})"
    return _binary(value)


def _names(value: dict[Any, Any]) -> list[str]:
    if any(type(name) is not str for name in value):
        raise UnkeyableError("an object has a name that is no text")
    return list(value)


def _scalar(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError as exc:
        raise UnkeyableError("it holds a number that JSON lacks") from exc


def _binary(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{_digest(value)}>"
    if _is_array(value):
        return f"<{value.dtype.str}{list(value.shape)}{_digest(value.reshape(-1).view('u1'))}>"
    raise UnkeyableError(f"it holds a {type(value).__name__}")


def _is_array(value: Any) -> bool:
    # Nothing here imports numpy: who has an array has it imported.
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray" and value.dtype.kind in "biufc"


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _size(value: Any, depth: int) -> int:
    """Returns how many bytes are to be hashed, about."""
    if isinstance(value, dict):
        return sum(_size(item, depth + 1) for item in value.values()) if depth < _MOST_DEPTH else 0
    if isinstance(value, list | tuple):
        return sum(_size(item, depth + 1) for item in value) if depth < _MOST_DEPTH else 0
    return len(value) if isinstance(value, str | bytes | bytearray) else int(getattr(value, "nbytes", 8))
