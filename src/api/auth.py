"""Who may come in: API keys, Host names and origins (a web page must not drive a service on loopback)."""

import hashlib
import hmac

from src.core.config import Settings, is_loopback
from src.core.errors import AuthenticationError, ForbiddenError

OPEN_PATHS = frozenset({"/livez", "/readyz"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Doorkeeper:
    """Checks a request's headers against the settings."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [_hashed(key.encode()) for key in settings.api_keys]
        self._anonymous = settings.allow_anonymous
        self._any_host = "*" in settings.allowed_hosts
        # A wildcard address is no name that anybody sends.
        own = {settings.host.lower()} - {"0.0.0.0", "::"}
        self._hosts = {"localhost", *own, *(name.lower() for name in settings.allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    def check(self, method: str, path: str, headers: dict[bytes, bytes], client: str | None) -> None:
        """Raises `ForbiddenError` or `AuthenticationError`."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        self._check_host(host)
        if method not in SAFE_METHODS:
            self._check_origin(headers.get(b"origin"), host)
        if path not in OPEN_PATHS:
            self._check_key(headers, client)

    def _check_host(self, host: str) -> None:
        name = host_name(host)
        if self._any_host or name in self._hosts or is_loopback(name):
            return
        raise ForbiddenError(f"the Host name '{name}' is not one this service answers to: add it to AIML_ALLOWED_HOSTS")

    def _check_origin(self, origin: bytes | None, host: str) -> None:
        if origin is None:
            return
        text = origin.decode("latin-1").lower().rstrip("/")
        if text in self._origins or text in (f"http://{host}", f"https://{host}"):
            return
        raise ForbiddenError(
            f"requests from pages of '{text}' are refused: add it to AIML_ALLOWED_ORIGINS if it may drive this service"
        )

    def _check_key(self, headers: dict[bytes, bytes], client: str | None) -> None:
        if not self._keys:
            if self._anonymous or client is None or is_loopback(client):
                return
            raise AuthenticationError(
                "this service has no API keys, so only its own machine may ask: set AIML_API_KEYS"
            )
        given = given_key(headers)
        if given is None:
            raise AuthenticationError("an API key is needed: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'")
        hashed = _hashed(given)
        # Every key is compared, in constant time, so that timing tells nothing about any of them.
        if sum(hmac.compare_digest(hashed, key) for key in self._keys) == 0:
            raise AuthenticationError("the API key is not valid")


def host_name(host: str) -> str:
    """Returns a Host header's name without its port; `[::1]:8009` → `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def given_key(headers: dict[bytes, bytes]) -> bytes | None:
    """Returns the API key that a request carries."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token:
        return token.strip()
    return headers.get(b"x-api-key") or None


def _hashed(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
