"""The log of a fake hub: what was asked for, and what really went out."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class ReceivedRequest:
    """A request and its answer so far.

    `path` is the URL's, decoded; `file` the path in the repository where the answer's body is a file's content,
    which begins at byte `start` and of which `sent` bytes have gone out.
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    file: str | None = None
    start: int = 0
    sent: int = 0


class RequestLog:
    """Every request in the order of arrival; safe to use from any thread."""

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        self._lock = threading.Lock()

    def add(self, request: ReceivedRequest) -> None:
        """Keeps a request."""
        with self._lock:
            self.requests.append(request)

    def of_file(self, file: str | None) -> Iterator[ReceivedRequest]:
        """Yields the requests that a file's content answered; of any file where none is named."""
        with self._lock:
            known = list(self.requests)
        yield from (one for one in known if one.file is not None and one.method == "GET" and file in (None, one.file))
