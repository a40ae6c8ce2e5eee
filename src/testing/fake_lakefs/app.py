"""The application: from a request to its answer, without any socket."""

import base64
import hmac
import logging

from src.testing.fake_lakefs.asks import Ask
from src.testing.fake_lakefs.bodies import ClientLeftError
from src.testing.fake_lakefs.errors import ApiError, not_authenticated
from src.testing.fake_lakefs.routes import Route, routes
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.wire import Answer, refusal

logger = logging.getLogger(__name__)


class App:
    """Answers requests from one state, for whoever has its credentials."""

    def __init__(self, state: State, access_key_id: str, secret_access_key: str) -> None:
        self._state = state
        self._routes = routes(state)
        token = base64.b64encode(f"{access_key_id}:{secret_access_key}".encode()).decode()
        self._credentials = f"Basic {token}"

    @property
    def operations(self) -> frozenset[str]:
        """The names of what can be asked."""
        return frozenset(route.operation for route in self._routes)

    def route(self, ask: Ask) -> Route | None:
        """Finds what a request asks for, and notes what its path names."""
        for route in self._routes:
            names = route.names(ask.method, ask.path)
            if names is not None:
                ask.names = names
                return route
        return None

    def answer(self, ask: Ask, route: Route | None) -> Answer:
        """Answers a request; only `ClientLeftError` comes out."""
        try:
            return self._answer(ask, route)
        except ApiError as exc:
            return refusal(exc.status, exc.message)
        except ClientLeftError:
            raise
        except Exception as exc:
            logger.exception("%s %s", ask.method, ask.path)
            return refusal(500, f"the fake lakeFS failed: {exc!r}")

    def _answer(self, ask: Ask, route: Route | None) -> Answer:
        if not (route and route.public) and not self._may(ask):
            raise not_authenticated()
        if route is None:
            raise ApiError(501, f"the fake lakeFS does not speak {ask.method} {ask.path}")
        if route.locks:
            return route.endpoint(ask)
        ask.body.prefetch()
        with self._state.lock:
            return route.endpoint(ask)

    def _may(self, ask: Ask) -> bool:
        given = ask.headers.get("authorization") or ""
        return hmac.compare_digest(given.encode(), self._credentials.encode())
