"""How many parameters a model of Ollama's has: by its own count, by what it states, or by its name."""

import re
from collections.abc import Mapping
from typing import Any

_SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_STATED = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBT])?", re.IGNORECASE)
# 1.7b, 135m, 8x7b; e2b counts the parameters that are active at once.
_NAMED = re.compile(r"(?<![a-z0-9.])e?(?:(\d+)x)?(\d+(?:\.\d+)?)([mbt])(?![a-z0-9])", re.IGNORECASE)


def parameter_billions(facts: Mapping[str, Any]) -> float | None:
    """Returns the parameters in billions; None where nothing tells.

    `facts` is what `OllamaSource.show` (or Ollama's `/api/show`) says: `model_info["general.parameter_count"]`
    counts, else `details.parameter_size` (or `parameters`) as in `"751.63M"`, else the name's tag as in
    `qwen3:1.7b`, where `8x7b` is the product, an upper bound.
    """
    info, details = facts.get("model_info") or {}, facts.get("details") or {}
    exact = info.get("general.parameter_count") or facts.get("parameter_count")
    if isinstance(exact, int) and exact > 0:
        return exact / 1e9
    stated = stated_parameters(details.get("parameter_size") or facts.get("parameters"))
    if stated:
        return stated / 1e9
    return _named_billions(str(facts.get("name") or facts.get("model") or ""))


def stated_parameters(text: Any) -> int | None:
    """Returns the count that a text as in `1.7B` or `751.63M` stands for, rounded as it is; None for another text."""
    match = _STATED.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    return round(float(match[1]) * _SCALES[(match[2] or "B").upper()] if match[2] else float(match[1]))


def _named_billions(name: str) -> float | None:
    base, _, tag = name.rpartition(":")
    for part in (tag, base.rsplit("/", 1)[-1]):
        match = _NAMED.search(part)
        if match:
            experts, size, unit = match.groups()
            return int(experts or 1) * float(size) * _SCALES[unit.upper()] / 1e9
    return None
