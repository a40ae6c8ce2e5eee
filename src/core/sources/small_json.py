"""Reads the small JSON files beside a model's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

_MOST = 16_000_000


def read_json(path: Path) -> Mapping[str, Any]:
    """Returns the mapping in a file; an empty one where there is no file, or something else in it."""
    try:
        if path.stat().st_size > _MOST:
            return {}
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
