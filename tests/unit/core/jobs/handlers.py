"""A handler that does what the test tells it, and the names that all of these tests use."""

import threading
from collections.abc import Callable
from typing import Any

from src.core.jobs import JobContext, JobService

Json = dict[str, Any]
Open = Callable[..., JobService]
PATIENCE = 60.0


class Gate:
    """A handler that reports the bytes which its request names, and then runs until the test lets it end."""

    def __init__(self) -> None:
        self.starts: list[Json] = []
        self.most_at_once = 0
        self._running = 0
        self._open = threading.Event()
        self._change = threading.Condition()

    def __call__(self, job: JobContext, request: Json) -> Json:
        with self._change:
            self.starts.append(request)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            self._change.notify_all()
        try:
            job.progress(0, 100)
            job.progress(request.get("done", 0), 100)
            while not self._open.wait(0.01):
                job.check()
            if "error" in request:
                raise RuntimeError(request["error"])
            return {"echo": request}
        finally:
            with self._change:
                self._running -= 1

    def open(self) -> None:
        """Lets every job end, those to come as well."""
        self._open.set()

    def wait_for_starts(self, count: int) -> None:
        """Waits until so many jobs have begun."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.starts) >= count, PATIENCE), self.starts
