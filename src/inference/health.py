"""How the things beyond this process are: MLflow, lakeFS, Ollama, Redis. Looked at seldom, told at once."""

import asyncio
import time

from src.core.errors import PlatformError
from src.core.model_manager import ModelManager
from src.core.threads import in_thread
from src.inference.results import ResultCache
from src.inference.router import TaskRouter
from src.inference.types import JsonObject

FRESH_SECONDS = 5.0
FIRST_LOOK_SECONDS = 1.0


class DependencyMonitor:
    """Remembers the last look at each dependency, and looks again behind the request that finds it old."""

    def __init__(self, models: ModelManager, router: TaskRouter, results: ResultCache | None = None) -> None:
        self._models = models
        self._router = router
        self._results = results
        self._last: dict[str, JsonObject] = {}
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def report(self) -> dict[str, JsonObject]:
        """Returns per dependency `configured`, `status`, what else is known, and whether it `degrades` the service."""
        if time.monotonic() - self._looked_at > FRESH_SECONDS and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())
        if not self._last and self._looking is not None:
            await asyncio.wait({self._looking}, timeout=FIRST_LOOK_SECONDS)
        return self._last or {"mlflow": {"configured": False, "status": "starting", "degrades": False}}

    async def _look(self) -> None:
        mlflow, lakefs, ollama, redis = await asyncio.gather(
            self._mlflow(), self._lakefs(), self._ollama(), self._redis()
        )
        self._last = {"mlflow": mlflow, "lakefs": lakefs, "ollama": ollama, "redis": redis}
        self._looked_at = time.monotonic()

    async def _mlflow(self) -> JsonObject:
        settings = self._models.settings
        registry = self._models.registry
        state = await in_thread(registry.health) if registry.state != "starting" else {"state": "starting"}
        degraded = state.get("state") == "degraded"
        return {
            "configured": not settings.registry_is_embedded,
            "embedded": settings.registry_is_embedded,
            "status": {"ready": "ok", "starting": "starting"}.get(str(state.get("state")), "degraded"),
            "reason": state.get("reason"),
            "latency_ms": state.get("latency_ms"),
            "degrades": degraded,
        }

    async def _lakefs(self) -> JsonObject:
        # Without an address the version store is a folder of ours, checked whenever it is read.
        if not self._models.settings.lakefs.endpoint:
            return {"configured": False, "embedded": True, "status": "ok", "degrades": False}
        started = time.perf_counter()
        try:
            await in_thread(lambda: self._models.store.ping())
        except PlatformError as exc:
            reason = {"status": "unreachable", "reason": exc.message}
            return {"configured": True, "embedded": False, **reason, "degrades": True}
        return {
            "configured": True,
            "embedded": False,
            "status": "ok",
            "latency_ms": _milliseconds_since(started),
            "degrades": False,
        }

    async def _ollama(self) -> JsonObject:
        settings = self._models.settings.ollama
        if not settings.configured:
            return {"configured": False, "status": "not configured, tried on use", "degrades": False}
        started = time.perf_counter()
        try:
            engine = self._router.route("text-generation", "ollama").engine
            await engine.ping()
        except PlatformError as exc:
            return {"configured": True, "status": "unreachable", "reason": exc.message, "degrades": True}
        return {"configured": True, "status": "ok", "latency_ms": _milliseconds_since(started), "degrades": False}

    async def _redis(self) -> JsonObject:
        if self._results is None:
            return {"configured": False, "status": "not configured", "degrades": False}
        return await self._results.dependency()


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
