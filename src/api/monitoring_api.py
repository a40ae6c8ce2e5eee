"""Probes and metrics: `/livez`, `/readyz`, `/metrics`."""

from typing import Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api import schemas
from src.api.errors import json_response
from src.core import metrics
from src.inference.manager import InferenceManager


def router(manager: InferenceManager) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(tags=["monitoring"])

    @routes.get("/livez", response_model=None, responses={200: {"model": schemas.Probe}, **schemas.failures(403)})
    async def livez() -> Any:
        """Tells that the process answers."""
        return json_response({"status": "ok"})

    @routes.get(
        "/readyz",
        response_model=None,
        responses={
            200: {"model": schemas.Probe},
            503: {"model": schemas.Probe, "description": "not ready, with the reason"},
            **schemas.failures(400, 403, 404, 422),
        },
    )
    async def readyz(model: str | None = Query(None, description="a model's name; none: the service")) -> Any:
        """Tells whether the service, or one model, can take requests."""
        ready, reason = await manager.readiness(model)
        return json_response({"status": "ready" if ready else "not ready", "reason": reason}, 200 if ready else 503)

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **schemas.failures(401, 403)},
    )
    async def prometheus() -> Response:
        """Gives the metrics in Prometheus's text format."""
        metrics.loaded_models.set(len(manager.cache))
        body, content_type = metrics.exposition()
        return Response(body, media_type=content_type)

    return routes
