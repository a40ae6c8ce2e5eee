"""The one manager of this process."""

import threading

from src.core.model_manager import model_manager
from src.inference.manager import InferenceManager
from src.inference.registry import model_registry

_default: InferenceManager | None = None
_lock = threading.Lock()


def default_manager() -> InferenceManager:
    """Returns the one manager of this process, made from the settings at its first use."""
    global _default
    with _lock:
        if _default is None:
            model_manager.lead_mlflow_here()
            _default = InferenceManager(model_manager, model_registry)
            model_manager.serve_through(hot_swap=_default.hot_swap, judge=_default.judge)
        return _default
