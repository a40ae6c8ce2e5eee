"""What lakeFS answers when it refuses, or cannot be reached, in the words of this platform."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from src.core.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PlatformError,
    StoreUnavailableError,
)


@contextmanager
def translated(address: str, what: str) -> Iterator[None]:
    """Turns what the client raises into the errors of a version store; `what` names the thing asked for."""
    from lakefs_sdk.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as exc:
        raise refusal(address, what, exc.status or 0, exc.body or exc.reason or "") from exc
    except HTTPError as exc:
        raise StoreUnavailableError(
            f"lakeFS at {address} cannot be reached ({_cause(exc)}): see that it runs and that LAKEFS_ENDPOINT "
            f"is its address, for example with: curl -i {address.rstrip('/')}/api/v1/healthcheck"
        ) from exc


def refusal(address: str, what: str, status: int, body: str | bytes) -> PlatformError:
    """Returns the error for an answer that is none of 2xx."""
    said = _message(body)
    if status == 401:
        return ConfigurationError(
            f"lakeFS at {address} refused the credentials ({said}): "
            "check LAKEFS_ACCESS_KEY_ID and LAKEFS_SECRET_ACCESS_KEY"
        )
    if status == 403:
        return ConfigurationError(
            f"lakeFS at {address} does not allow this ({what}: {said}): give the user of LAKEFS_ACCESS_KEY_ID "
            "the right to it in lakeFS, or use another user's key"
        )
    kinds: dict[int, type[PlatformError]] = {
        400: InvalidInputError,
        404: NotFoundError,
        409: ConflictError,
        410: NotFoundError,
        412: ConflictError,
    }
    if kind := kinds.get(status):
        return kind(f"{what}: lakeFS says {said!r}", details={"lakefs": said})
    return StoreUnavailableError(f"{what}: lakeFS at {address} answered {status or 'nothing usable'} ({said})")


def foreign(address: str, what: str) -> StoreUnavailableError:
    """Returns the error for an answer that no lakeFS gives."""
    return StoreUnavailableError(
        f"{what}: what answers at {address} does not answer as lakeFS does: check LAKEFS_ENDPOINT"
    )


def _message(body: str | bytes) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        return str(json.loads(text)["message"])
    except (KeyError, TypeError, ValueError):
        return text.strip()[:200]


def _cause(exc: Exception) -> str:
    """Returns the last of a chain of network errors: the first ones only wrap it."""
    reason = getattr(exc, "reason", None)
    return _cause(reason) if isinstance(reason, Exception) else str(exc) or type(exc).__name__
