"""JobContext: what a handler has of the job it works on."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from src.core.jobs.job import Job, JsonObject
from src.core.jobs.speed import SpeedWindow


class JobStopped(BaseException):
    """The handler has to let go. No `Exception`, so that no retry and no translation of errors swallows it."""


class JobCancelled(JobStopped):
    """Somebody cancelled the job: remove what it has left half-done, and raise this on."""


class JobInterrupted(JobStopped):
    """The service stops: leave what is there, for the job is run again at the next start."""


_ADVANCE_SPACING = 1.0  # seconds between two times that progress is written down

JobHandler = Callable[["JobContext", JsonObject], JsonObject]
"""Carries out a request and returns its result, both plain JSON. It blocks, and goes on by itself when run again."""


class JobContext:
    """Reports on a job and keeps what it has to know when it is run again. Safe to use from any thread."""

    def __init__(
        self, job: Job, keep: Callable[[JsonObject], None], advanced: Callable[[int], None] = lambda done: None
    ) -> None:
        """`advanced` is told now and then of bytes that no run of the job had reached before."""
        self.id = job.id
        self._notes = dict(job.notes)
        self._keep = keep
        self._advanced = advanced
        self._furthest = job.furthest
        self._advanced_at = float("-inf")
        self._noting = threading.Lock()  # apart from the other, since it is held while the disk is written
        self._lock = threading.Lock()
        self._window = SpeedWindow()
        self._done = 0
        self._total = 0
        self.cancelled = job.cancelling
        self.interrupted = False

    # ------------------------------------------------------------------ for the handler

    def progress(self, done: int, total: int) -> None:
        """Tells how many bytes are done, and of how many (0: not known); raises as `check` does."""
        now = time.monotonic()
        with self._lock:
            self._done, self._total = done, total
            if done or total:  # else nothing is known yet, and what is there already would look like speed
                self._window.add(now, done)
            further = done > self._furthest and now - self._advanced_at >= _ADVANCE_SPACING
            if further:
                self._furthest, self._advanced_at = done, now
        if further:
            self._advanced(done)
        self.check()

    def check(self) -> None:
        """Raises `JobCancelled` once the job is cancelled, `JobInterrupted` once the service stops."""
        if self.cancelled:
            raise JobCancelled(f"job {self.id} was cancelled")
        if self.interrupted:
            raise JobInterrupted(f"job {self.id} is interrupted: the service stops")

    def note(self, key: str, value: Any) -> None:
        """Keeps a small JSON value; it is on disk when this returns, and in `notes` when the job is run again.

        Raises `InvalidInputError` for what is not JSON, `JobsUnavailableError` where it cannot be written.
        """
        with self._noting:
            notes = {**self._notes, key: value}
            self._keep(notes)
            self._notes = notes

    @property
    def notes(self) -> JsonObject:
        """The values noted so far, by this run and by those before it."""
        return dict(self._notes)

    # ------------------------------------------------------------------ for the runner

    def measured(self, job: Job) -> Job:
        """Returns the job with its progress as it is now."""
        with self._lock:
            done, total = self._done, self._total
            speed = self._window.bytes_per_second(time.monotonic(), done)
        return replace(
            job,
            bytes_done=done,
            bytes_total=total,
            bytes_per_second=speed,
            eta_seconds=max(0, total - done) / speed if speed and total else None,
            progress=min(1.0, done / total) if total else 0.0,
        )
