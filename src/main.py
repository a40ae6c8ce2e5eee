"""The service: `create_app` is the only place where its parts are put together; `main` serves it."""

import asyncio
import logging
import math
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi_swagger import patch_fastapi
from starlette.types import ASGIApp, Receive, Scope, Send

from src import __version__
from src.api import datasets_api, errors, infer_upload, inference_api, jobs_api, models_api, monitoring_api
from src.api.arrivals import Arrivals
from src.api.joined_writes import JoiningProtocol
from src.api.leaving import cut_off_everyone
from src.api.middleware import BodyLimit, Guard
from src.core import logs
from src.core.config import Settings, load_env_file, load_settings, unknown_variables
from src.core.errors import ConfigurationError
from src.core.jobs import JobService
from src.core.lifecycle.work import LifecycleJobs
from src.core.model_manager import ModelManager, model_manager
from src.core.samples import register_samples
from src.core.threads import in_background, in_thread
from src.inference.default import default_manager
from src.inference.manager import InferenceManager, settle_memory

logger = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 3
"""What requests that are cut off have to say so; whoever still holds a connection then is disconnected."""


class Service(FastAPI):
    """The application behind its guard, which stands in front of the framework's own layers too."""

    front: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves through the guard."""
        if self.front is None or scope["type"] != "http":
            await super().__call__(scope, receive, send)
        else:
            await self.front(scope, receive, send)

    async def behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves what the guard has let in."""
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings | None = None,
    *,
    models: ModelManager | None = None,
    manager: InferenceManager | None = None,
) -> Service:
    """Returns the application; without arguments over the same instances that the Python door uses."""
    models = models or model_manager
    manager = manager or default_manager()
    settings = settings or models.settings
    models.serve_through(hot_swap=manager.hot_swap, judge=manager.judge)
    work = LifecycleJobs(models)
    infer_files = infer_upload.UploadEndpoint(manager, settings)
    app = Service(
        title="AI model lifecycle and unified inference",
        version=__version__,
        description="One door for every task; every answer names the version that produced it.",
        lifespan=_lifespan(models, manager, work, infer_files.arrivals),
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    # Swagger with its scripts from here: the page works on a machine without internet.
    patch_fastapi(app, swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True})
    max_body = int(settings.max_body_mb * 1_000_000)
    infer = inference_api.install(app, manager, max_body)
    app.router.routes.append(infer_files.route())
    app.state.jobs = work.service
    # The guard refuses by Content-Length; these limits hold where a body comes in chunks.
    app.include_router(models_api.router(models, work), max_body_size=max_body)
    app.include_router(datasets_api.router(work, settings.max_upload_bytes), max_body_size=max_body)
    jobs = jobs_api.router(work)
    app.include_router(jobs)
    app.include_router(jobs, prefix="/models")
    app.include_router(monitoring_api.router(manager))
    errors.install(app)
    upload = BodyLimit(settings.max_upload_bytes, "AIML_MAX_UPLOAD_GB")
    infer_upload_limit = BodyLimit(infer_files.max_bytes, infer_upload.LIMITED_BY)
    app.front = Guard(
        app.behind,
        settings,
        direct={inference_api.PATH: infer, infer_upload.PATH: infer_files},
        multipart={"/models/upload": upload, "/datasets/upload": upload, infer_upload.PATH: infer_upload_limit},
    )
    if settings.allowed_origins:
        # In front of the guard, since a browser's preflight carries no key.
        app.front = CORSMiddleware(
            app.front,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _lifespan(models: ModelManager, manager: InferenceManager, work: LifecycleJobs, arrivals: Arrivals) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await manager.start()
        work.service.expect_start()
        in_background(lambda: register_samples(models), lambda: None)
        in_background(work.start, lambda: None)
        in_background(arrivals.start, lambda: None)
        settle_memory()
        yield
        await in_thread(work.service.stop)
        await manager.stop()
        await in_thread(arrivals.close)

    return lifespan


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        infer, definitions = inference_api.openapi_entry()
        upload, more = infer_upload.openapi_entry()
        schema["paths"] = {inference_api.PATH: infer, infer_upload.PATH: upload, **schema["paths"]}
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        for name, definition in {**definitions, **more}.items():
            components.setdefault(name, definition)
        app.openapi_schema = schema
    return app.openapi_schema


def main() -> None:
    """Serves on AIML_HOST:AIML_PORT until told to stop."""
    load_env_file()
    try:
        settings = load_settings()
        settings.check_listening()
        logs.configure(settings)
        for sentence in unknown_variables():
            logger.warning("%s", sentence)
        app = create_app()
    except ConfigurationError as exc:
        sys.exit(f"The service cannot start: {exc}")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=JoiningProtocol,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the guard decides which proxies are believed
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + _LAST_WORDS_SECONDS,
    )
    _Server(config, app.state.jobs, settings.drain_seconds).run()


class _Server(uvicorn.Server):
    """Told to stop, it takes no new connection and lets requests end, but not for ever.

    It stops the jobs at once, for whoever watches one holds a connection open; requests for inference that are not
    answered `drain_seconds` later are failed with a `DrainingError`.
    """

    def __init__(self, config: uvicorn.Config, jobs: JobService, drain_seconds: float) -> None:
        super().__init__(config)
        self._jobs = jobs
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends what still runs, in time."""
        deadline = asyncio.get_running_loop().call_later(self._drain_seconds, cut_off_everyone)
        try:
            await super().shutdown(sockets)
        finally:
            deadline.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end."""
        in_background(self._jobs.stop, lambda: None)
        super().handle_exit(sig, frame)


if __name__ == "__main__":
    main()
