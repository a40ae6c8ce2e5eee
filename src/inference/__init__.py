"""The one door: `from src.inference import inference_manager`."""

from typing import TYPE_CHECKING, Any

from src.core.errors import InferenceError

if TYPE_CHECKING:
    from src.inference.manager import InferenceManager

    inference_manager: InferenceManager

__all__ = ["InferenceError", "inference_manager"]


def __getattr__(name: str) -> Any:
    # PEP 562: what only wants an error class or a type does not pay for the manager.
    if name == "inference_manager":
        from src.inference.default import default_manager

        return default_manager()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
