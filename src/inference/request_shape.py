"""The shape of a request from Python, whose types nothing has checked before."""

from typing import Any

from src.core.errors import ValidationError


def check_types(task: Any, engine: Any, model_name: Any, data: Any, options: Any) -> None:
    """Raises `ValidationError` that names the first argument of a wrong type."""
    for name, value, wanted in (
        ("task", task, str),
        ("engine", engine, str),
        ("model_name", model_name, str),
        ("data", data, dict),
    ):
        if not isinstance(value, wanted):
            kind = "a text" if wanted is str else "an object"
            raise ValidationError(f"'{name}' must be {kind}, not {type(value).__name__}", details={"field": name})
    if options is not None and not isinstance(options, dict):
        raise ValidationError(
            f"'options' must be an object, not {type(options).__name__}", details={"field": "options"}
        )
