"""A lakeFS server through its official client: calls that end in time and fail in our words."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from src.core.stores.lakefs.answers import foreign, refusal, translated

if TYPE_CHECKING:
    from lakefs_sdk.client import LakeFSClient

PAGE = 1000  # the most that lakeFS lists at once
_CONNECT_TIMEOUT = 5.0  # seconds

R = TypeVar("R")


class Connection:
    """Asks one server; the client is made at the first question. May be used from any thread."""

    def __init__(
        self,
        address: str,
        access_key_id: str,
        secret_access_key: str,
        *,
        timeout: float,
        verify_ssl: bool,
    ) -> None:
        self.address = address
        self._credentials = (access_key_id, secret_access_key)
        self._timeout = timeout
        self._verify_ssl = verify_ssl
        self._made: LakeFSClient | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> "LakeFSClient":
        """The official client."""
        with self._lock:
            self._made = self._made or self._make()
            return self._made

    def ask(self, what: str, call: Callable[..., R], *args: Any, **options: Any) -> R:
        """Makes one call of the client; `what` names, for messages, the thing asked for."""
        with translated(self.address, what):
            try:
                return call(*args, _request_timeout=(_CONNECT_TIMEOUT, self._timeout), **options)
            except (AttributeError, TypeError, ValueError) as exc:  # the client could make nothing of the answer
                raise foreign(self.address, what) from exc

    def pages(
        self, what: str, call: Callable[..., Any], *args: Any, limit: int | None = None, **options: Any
    ) -> Iterator[Any]:
        """Yields the results of a listing through all its pages, the first `limit` of them."""
        after = None
        left = limit
        while left is None or left > 0:
            amount = PAGE if left is None else min(left, PAGE)
            page = self.ask(what, call, *args, after=after, amount=amount, **options)
            yield from page.results
            left = None if left is None else left - len(page.results)
            if not page.pagination.has_more:
                return
            after = page.pagination.next_offset

    @contextmanager
    def streamed(
        self,
        what: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Iterable[memoryview] | None = None,
    ) -> Iterator[Any]:
        """Yields urllib3's response to a request of our own, its body unread; 416 counts as an empty one.

        It takes the client's connections, certificates and credentials, as the client's own object writer does.
        """
        from urllib3 import Timeout

        api = self.client.objects_api.api_client
        sent = {**api.default_headers, **headers}
        api.update_params_for_auth(sent, None, ["basic_auth"], path, method, None)
        with translated(self.address, what):
            response = api.rest_client.pool_manager.request(
                method,
                api.configuration.host + path,
                body=body,
                headers=sent,
                preload_content=False,
                timeout=Timeout(connect=_CONNECT_TIMEOUT, read=self._timeout),
            )
            try:
                if response.status not in (200, 201, 206, 416):
                    raise refusal(self.address, what, response.status, response.data)
                yield response
            finally:
                response.close()  # where something is left unread, its connection cannot be used again

    def _make(self) -> "LakeFSClient":
        from lakefs_sdk.client import LakeFSClient
        from lakefs_sdk.configuration import Configuration
        from urllib3 import Retry

        name, secret = self._credentials
        settings: Any = Configuration(host=self.address, username=name, password=secret)
        settings.verify_ssl = self._verify_ssl
        # Only requests that may be repeated are, and a server that is away is found out soon.
        settings.retries = Retry(total=3, connect=0, read=2, backoff_factor=0.2)
        make: Callable[..., LakeFSClient] = LakeFSClient
        return make(settings, header_name="X-Lakefs-Client", header_value="aiml")
