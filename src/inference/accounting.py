"""What every finished request leaves behind: counts, metrics and a line in the log."""

import logging
from typing import Any

from src.core import metrics
from src.core.errors import PlatformError
from src.core.logs import LineTemplate
from src.core.model_manager import ModelManager
from src.inference.registry import ModelRegistry
from src.inference.router import canonical_task
from src.inference.stats import InferenceStats
from src.inference.types import Answer, InferenceRequest

_line = LineTemplate(logging.getLogger(__name__), logging.INFO, "inference")


class RequestAccount:
    """Books requests as they end."""

    def __init__(self, stats: InferenceStats, registry: ModelRegistry, models: ModelManager) -> None:
        self._stats = stats
        self._registry = registry
        self._models = models

    def succeeded(self, request: InferenceRequest, answer: Answer, seconds: float) -> None:
        """Books an answer that took `seconds`."""
        made_by = answer.provenance
        self._stats.succeeded(made_by.registered_name or request.model_name, seconds)
        metrics.inference_outcome(request.task, request.engine, "success").inc()
        metrics.inference_duration(request.task, request.engine).observe(seconds)
        self._log(request, seconds, outcome="success", version=made_by.version, commit=made_by.commit)

    def failed(self, request: InferenceRequest, error: PlatformError, seconds: float) -> None:
        """Books a failure after `seconds`."""
        known = self._registry.tasks()
        # Labels come from strangers: only names that exist may become one.
        task = request.task if canonical_task(request.task) in known else "unknown"
        engine = request.engine if request.engine in self._registry.engines() else "unknown"
        metrics.inference_outcome(task, engine, error.error_type).inc()
        name = request.model_name.partition("@")[0]
        self._stats.failed(name if self._models.registry.cached(name) is not None else None)
        self._log(request, seconds, outcome=error.error_type, error=error.message)

    def _log(self, request: InferenceRequest, seconds: float, **facts: Any) -> None:
        _line.log(
            {
                "request_id": request.request_id,
                "task": request.task,
                "engine": request.engine,
                "model": request.model_name,
                "seconds": round(seconds, 6),
                **facts,
            }
        )
