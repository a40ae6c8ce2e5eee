"""The fake hub: two addresses, repositories, a log and faults that outlive a restart."""

import secrets
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from src.testing.fake_hub.faults import Faults
from src.testing.fake_hub.repos import FakeRepo
from src.testing.fake_hub.requests import ReceivedRequest, RequestLog
from src.testing.fake_hub.routes import Routes
from src.testing.fake_hub.serving import Listener


class FakeHub:
    """A hub on real sockets, for as long as the `with` block lasts.

    It knows `tokens` and refuses others; `page_size` is how many entries of a tree one answer lists. `requests`
    keeps every request received, `faults` what is to go wrong; both may be used while it runs.
    """

    def __init__(
        self,
        repos: Iterable[FakeRepo] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens: tuple[str, ...] = (),
        page_size: int = 1000,
    ) -> None:
        self.faults = Faults()
        self._log = RequestLog()
        self._repos: dict[tuple[str, str], FakeRepo] = {}
        self._host, self._port, self._storage_port = host, port, 0
        self._routes = Routes(self._repos, tokens, page_size, secrets.token_hex(8))
        self._listeners: list[Listener] = []
        for repo in repos:
            self.put(repo)

    @property
    def url(self) -> str:
        """The address, without a slash at the end; the port stays the same over a restart."""
        return f"http://{self._host}:{self._port}"

    @property
    def storage_url(self) -> str:
        """The address that large files come from."""
        return f"http://{self._host}:{self._storage_port}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request received, at either address."""
        return self._log.requests

    def put(self, repo: FakeRepo) -> None:
        """Stores a repository, in place of any other of its name."""
        self._repos[repo.kind, repo.name] = repo

    def bytes_sent(self, file: str | None = None) -> int:
        """How many bytes of a file's content went out, over all answers; of all files where none is named."""
        return sum(request.sent for request in self._log.of_file(file))

    def fetches(self, file: str | None = None) -> int:
        """How many answers carried content of a file; of all files where none is named."""
        return sum(1 for _ in self._log.of_file(file))

    def start(self) -> Self:
        """Listens; returns once requests are answered."""
        if self._listeners:
            raise RuntimeError("the fake hub runs already")
        storage = Listener(self._host, self._storage_port, self._routes.storage, self._log, self.faults)
        self._listeners.append(storage)
        self._storage_port = storage.port
        hub = Listener(
            self._host,
            self._port,
            lambda asked: self._routes.hub(asked, self.url, self.storage_url),
            self._log,
            self.faults,
        )
        self._listeners.append(hub)
        self._port = hub.port
        return self

    def stop(self) -> None:
        """Closes every connection and joins the threads; repositories, log and faults stay."""
        while self._listeners:
            self._listeners.pop().end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
