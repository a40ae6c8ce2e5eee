"""The guard in front of every route: request id, Host, Origin, key, content type, body size, limits, last resort."""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import getrandbits

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api.auth import Doorkeeper
from src.api.errors import UnsupportedMediaTypeError, failure_response, internal_error
from src.api.forwarding import farthest, scheme
from src.api.limits import CallerLimits
from src.core import metrics
from src.core.config import Settings
from src.core.errors import PayloadTooLargeError, PlatformError

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_REMEMBERED = 1000
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """How many bytes the body of a route may have, and the setting that says so."""

    bytes: int
    setting: str


class Guard:
    """Checks a request before any route sees it, and answers for routes that fail.

    POST requests to a path in `direct` go straight to its endpoint: the layers between cost more than
    the endpoint itself. A path in `multipart` takes files, with a limit of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        direct: Mapping[str, ASGIApp] | None = None,
        multipart: Mapping[str, BodyLimit] | None = None,
    ) -> None:
        self._app = app
        self._multipart = multipart or {}
        self._direct = direct or {}
        self._doorkeeper = Doorkeeper(settings)
        # Who was let in, by what the doorkeeper looks at; with keys it looks each time.
        self._known: set[tuple[bytes | None, bytes | None, str | None]] | None = None if settings.api_keys else set()
        self._limits = CallerLimits.of(settings)
        self._limit = BodyLimit(int(settings.max_body_mb * 1_000_000), "AIML_MAX_BODY_MB")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["aiml.headers"] = dict(scope["headers"])
        request_id = _request_id(headers)
        scope["aiml.request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        limits, caller = self._limits, None
        try:
            self._check(scope, headers)
            if limits is not None and scope["method"] in _BODY_METHODS:
                caller = limits.enter(scope, headers)
            app = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
            await (app or self._app)(scope, receive, answer)
        except PlatformError as exc:
            await failure_response(exc, request_id)(scope, receive, answer)
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id, "path": scope["path"]})
            if answer.status is None:
                await failure_response(internal_error(request_id), request_id)(scope, receive, answer)
        finally:
            if limits is not None and caller is not None:
                limits.leave(caller)
            _account(scope, answer.status, time.perf_counter() - started, request_id)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        client = scope.get("client")
        address = client[0] if client else None
        if b"x-forwarded-proto" in headers:
            scope["scheme"] = scheme(address, headers[b"x-forwarded-proto"], scope["scheme"])
        if b"x-forwarded-for" in headers:
            address = farthest(address, scope["headers"])
        changes = scope["method"] in _BODY_METHODS
        visitor = (headers.get(b"host"), headers.get(b"origin"), address)
        if self._known is None or visitor not in self._known:
            self._doorkeeper.check(scope["method"], scope["path"], headers, address)
            if self._known is not None and changes:
                self._remember(visitor)
        if changes:
            files = self._multipart.get(scope["path"])
            _check_size(headers, files or self._limit)
            if _has_body(headers):
                _check_type(headers, b"multipart/form-data" if files else b"application/json")

    def _remember(self, visitor: tuple[bytes | None, bytes | None, str | None]) -> None:
        assert self._known is not None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known.add(visitor)


class _Answer:
    """Passes a response on, adds the request id to it and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode("latin-1")
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
        await self._send(message)


def _check_size(headers: dict[bytes, bytes], limit: BodyLimit) -> None:
    length = headers.get(b"content-length")
    size = int(length) if length and length.isdigit() else 0
    if size > limit.bytes:
        raise PayloadTooLargeError(
            f"the body has {size} bytes; at most {limit.bytes} are taken ({limit.setting})",
            details={"bytes": size, "max_bytes": limit.bytes},
        )


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _check_type(headers: dict[bytes, bytes], wanted: bytes) -> None:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != wanted:
        name = wanted.decode()
        raise UnsupportedMediaTypeError(
            f"this route takes {name}, not {kind.decode('latin-1') or 'a body without content type'}: "
            f"send the header 'Content-Type: {name}'"
        )


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return f"{getrandbits(128):032x}"


def _account(scope: Scope, status: int | None, seconds: float, request_id: str) -> None:
    route = scope.get("route")
    # Paths come from strangers; only those of routes may become label values.
    name = getattr(route, "path", None) or scope.get("aiml.route") or "unmatched"
    metrics.http_outcome(scope["method"], name, status or 0).inc()
    if logger.isEnabledFor(logging.DEBUG):
        facts = {"request_id": request_id, "method": scope["method"], "path": scope["path"], "status": status}
        logger.debug("request", extra={**facts, "seconds": round(seconds, 6)})
