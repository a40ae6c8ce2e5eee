"""The one table from errors to HTTP statuses, and the failure envelope as a response."""

import math
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from src.core import errors
from src.core.errors import PlatformError
from src.inference.types import failure_envelope

STATUSES: tuple[tuple[type[PlatformError], int], ...] = (
    # most specific first
    (errors.InvalidInputError, 400),
    (errors.ValidationError, 422),
    (errors.AuthenticationError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.PayloadTooLargeError, 413),
    (errors.RateLimitedError, 429),
    (errors.InferenceTimeoutError, 504),
    (errors.CancelledError, 499),
    (errors.InsufficientMemoryError, 507),
    (errors.UnavailableError, 503),
)


class UnsupportedMediaTypeError(errors.InferenceError):
    """The body's content type is not the one that the route takes."""


class MethodNotAllowedError(errors.InferenceError):
    """The route exists, for other methods."""


class InternalError(errors.InferenceError):
    """Something went wrong that should not; the log has the details."""


_BY_HTTP = {404: errors.NotFoundError, 405: MethodNotAllowedError, 413: errors.PayloadTooLargeError}


def status_of(error: PlatformError) -> int:
    """Returns the HTTP status of an error; 500 for one that is the service's own fault."""
    if isinstance(error, UnsupportedMediaTypeError):
        return 415
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def error_named(error_type: str, message: str, details: dict[str, Any]) -> PlatformError:
    """Returns the error of a type that was written down, so that it gets its status again."""
    kinds: dict[str, type[PlatformError]] = {kind.__name__: kind for kind in _kinds(PlatformError)}
    kinds["ValueError"] = errors.InvalidInputError
    return kinds.get(error_type, InternalError)(message, details=details)


def _kinds(kind: type[PlatformError]) -> list[type[PlatformError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _kinds(below))]


def failure_response(error: PlatformError, request_id: str, *, status: int | None = None, **echo: Any) -> Response:
    """Returns the failure envelope with its status and headers."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, errors.AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(failure_envelope(error, request_id, **echo), status or status_of(error), headers)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a value as a JSON response."""
    return Response(to_json(value), status, headers, media_type="application/json")


def to_json(value: Any) -> bytes:
    """Returns a value as JSON; what JSON does not know is written as text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def request_id_of(request: Request) -> str:
    """Returns the id that the guard gave this request."""
    return str(request.scope.get("aiml.request_id", ""))


def internal_error(request_id: str) -> InternalError:
    """Returns the error of a request that met a mistake of ours."""
    return InternalError(f"the service failed on this request; its log has the details under {request_id}")


def install(app: FastAPI) -> None:
    """Makes every error of every route wear the envelope."""

    @app.exception_handler(PlatformError)
    async def platform_error(request: Request, exc: PlatformError) -> Response:
        return failure_response(exc, request_id_of(request))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, exc: Exception) -> Response:
        return failure_response(internal_error(request_id_of(request)), request_id_of(request))

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, exc: RequestValidationError) -> Response:
        problems = [{"where": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in exc.errors()]
        text = "; ".join(f"{problem['where']}: {problem['problem']}" for problem in problems)
        return failure_response(errors.ValidationError(text, details={"problems": problems}), request_id_of(request))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        kind = _BY_HTTP.get(exc.status_code, errors.InferenceError)
        words = {
            404: f"there is no {request.url.path} here; see /docs",
            405: f"{request.method} is not for this route",
            413: "the body is larger than this route takes (AIML_MAX_BODY_MB)",
        }
        response = failure_response(
            kind(words.get(exc.status_code, str(exc.detail))), request_id_of(request), status=exc.status_code
        )
        response.headers.update(exc.headers or {})
        return response
