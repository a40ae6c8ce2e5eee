"""JobService: durable jobs over one data folder; what the rest of the code has of this package."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from src.core.errors import (
    ConflictError,
    DrainingError,
    InvalidInputError,
    JobsUnavailableError,
    NotFoundError,
    PlatformError,
    ValidationError,
)
from src.core.file_lock import file_locked
from src.core.jobs.board import JobBoard
from src.core.jobs.context import JobHandler
from src.core.jobs.job import STATUSES, Job, JsonObject, as_json_object
from src.core.jobs.runner import Entry, Runner
from src.core.jobs.table import JobTable, read_job, read_newest
from src.core.stores.disk import make_folder

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_START_SECONDS = 10.0
_CHANGES_INTERVAL = 0.2
_DAY = 86400.0


class JobService:
    """Takes, carries out and shows jobs. One process at a time carries out those of a data folder.

    Jobs can be looked at before `start` and without it. Every method may be called from any thread; `submit`,
    `submit_batch`, `cancel` and `stop` wait for the disk.
    """

    def __init__(
        self,
        data_dir: Path,
        handlers: Mapping[str, JobHandler],
        *,
        concurrency: int = 2,
        keep_days: float = 30,
        keep_jobs: int = 1000,
        most_unfinished: int = 1000,
    ) -> None:
        """Touches no file. `keep_…`: finished jobs that are older, or more, are forgotten at the next start."""
        self._path = data_dir / "jobs.db"
        self._handlers = dict(handlers)
        self._concurrency = concurrency
        self._keep_days = keep_days
        self._keep_jobs = keep_jobs
        self._most_unfinished = most_unfinished
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self._problem: PlatformError = JobsUnavailableError("Jobs are carried out once the service has started")
        self._stopped = threading.Event()
        self._begun = threading.Event()
        self._begun.set()

    # ------------------------------------------------------------------ lifecycle

    def expect_start(self) -> None:
        """Has `submit` wait for `start`, which a thread is about to call: who asks at once is not turned away."""
        self._begun.clear()

    def start(self) -> None:
        """Takes the jobs of the data folder over and goes on with those that have not ended.

        Where that cannot be (another process has them, the disk is full), `submit` says so, and it is tried again
        every second.
        """
        self._stopped.clear()
        try:
            taken = self._take_over()
        finally:
            self._begun.set()
        if not taken:
            logger.warning("jobs are not carried out for now: %s", self._problem.message)
            threading.Thread(target=self._keep_trying, name="aiml-jobs-start", daemon=True).start()

    def stop(self, timeout: float = 10.0) -> None:
        """Interrupts what runs and waits so long for it; it is gone on with at the next start.

        While a handler does not let go, no other process gets the jobs of the data folder.
        """
        self._stopped.set()
        with self._lock:
            runner = self._runner
            self._problem = DrainingError("The service is stopping; try again when it is back")
        if runner is not None:
            runner.stop(timeout)
            self._runner = None

    def _take_over(self) -> bool:
        """Returns whether there is nothing left to try."""
        with self._lock:
            if self._runner is None and not self._stopped.is_set():
                try:
                    self._runner = self._new_runner()
                except PlatformError as exc:
                    self._problem = exc
            return self._runner is not None or self._stopped.is_set()

    def _keep_trying(self) -> None:
        while not self._stopped.wait(_RETRY_SECONDS):
            if self._take_over():
                logger.info("jobs are carried out now")
                return

    def _new_runner(self) -> Runner:
        with ExitStack() as held:
            self._hold_lock(held)
            table = JobTable(self._path)
            held.callback(table.close)
            board = JobBoard(table)
            board.prune(finished_before=time.time() - self._keep_days * _DAY, most=self._keep_jobs)
            runner = Runner(
                board,
                self._handlers,
                concurrency=self._concurrency,
                most_unfinished=self._most_unfinished,
                let_go=held.pop_all().close,
            )
        runner.recover()
        return runner

    def _hold_lock(self, held: ExitStack) -> None:
        lock = self._path.with_name("jobs.lock")
        try:
            make_folder(lock.parent)
            held.enter_context(file_locked(lock, timeout=0))
        except TimeoutError as exc:
            raise JobsUnavailableError(
                f"Another process carries out the jobs of {lock.parent}; ask that service, or stop it first"
            ) from exc
        except OSError as exc:
            raise JobsUnavailableError(f"The data folder {lock.parent} cannot be written: {exc}") from exc

    # ------------------------------------------------------------------ asking

    def submit(self, kind: str, request: JsonObject, *, after: Sequence[str] = ()) -> Job:
        """Takes a job, durably; the same request to the same kind that has not ended yet is that one job.

        It starts when all the jobs `after` have succeeded, and fails when one of them does not. Raises
        `NotFoundError` for an unknown one of those, `JobsUnavailableError` where jobs cannot be taken,
        `QueueFullError` past the bound.
        """
        return self.get(self._working().submit(self._known_kind(kind), as_json_object(request), after))

    def submit_batch(self, kind: str, requests: Sequence[Entry]) -> Job:
        """Takes a parent of its own `kind` with one job per (kind, request), all or none, as `submit` does.

        Its result is `{"jobs": [{"id", "status", "result" or "error" and "error_type"}, …]}`, by entry.
        """
        if not requests:
            raise InvalidInputError("The batch is empty; give at least one entry")
        entries = [(self._known_kind(each), as_json_object(request)) for each, request in requests]
        return self.get(self._working().submit_batch(kind, entries))

    def cancel(self, job_id: str) -> Job:
        """Cancels a job, and a parent's own children; one that runs is cancelled when its handler has let go.

        Raises `NotFoundError`, and `ConflictError` for a job that is over.
        """
        told = self._working().cancel(job_id)
        job = self.get(job_id)
        if not told:
            raise ConflictError(f"Job {job_id} is over ({job.status}); there is nothing to cancel")
        return job

    def _working(self) -> Runner:
        self._begun.wait(_START_SECONDS)
        runner = self._runner
        if runner is None:
            raise self._problem
        return runner

    def _known_kind(self, kind: str) -> str:
        if kind not in self._handlers:
            raise ValidationError(f"There are no jobs of the kind '{kind}'; there are: {', '.join(self._handlers)}")
        return kind

    # ------------------------------------------------------------------ looking

    def get(self, job_id: str) -> Job:
        """Returns a job as it is now; raises `NotFoundError`."""
        runner = self._runner
        job = (runner.find(job_id) if runner else None) or read_job(self._path, job_id)
        if job is None:
            raise NotFoundError(f"There is no job '{job_id}'; finished ones are kept for {self._keep_days:g} days")
        return job

    def unfinished(self, kind: str, match: Callable[[Job], bool]) -> Sequence[Job]:
        """Returns the jobs of a kind that have not ended and match."""
        limit = self._most_unfinished
        return [
            job
            for status in ("queued", "running")
            for job in self.list(status=status, kind=kind, limit=limit)
            if match(job)
        ]

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Returns a job when it has ended; as it is then when the time (s) has passed or the service stops."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            runner = self._runner
            # Another process may have the jobs, or nobody: then the file is looked at now and then.
            ended = runner.ended if runner else threading.Condition()
            with ended:
                job, left = self.get(job_id), deadline - time.monotonic()
                if job.finished or left <= 0 or self._stopped.is_set():
                    return job
                ended.wait(min(left, _CHANGES_INTERVAL))

    async def changes(self, job_id: str) -> AsyncIterator[Job]:
        """Yields a job as it is, then whenever it has changed, five times a second at most, until it has ended.

        Ends early when the service stops. Raises `NotFoundError`.
        """
        last: Job | None = None
        while True:
            stopped = self._stopped.is_set()
            job = self.get(job_id)
            if job != last:
                yield job
            if job.finished or stopped:
                return
            last = job
            await asyncio.sleep(_CHANGES_INTERVAL)

    def list(self, *, status: str | None = None, kind: str | None = None, limit: int = 100) -> "list[Job]":
        """Returns jobs, the newest first; raises `ValidationError` for a status that there is not."""
        if status is not None and status not in STATUSES:
            raise ValidationError(f"There is no status '{status}'; there are: {', '.join(STATUSES)}")
        runner = self._runner
        here = {job.id: job for job in runner.all()} if runner else {}
        stored = read_newest(self._path, status=status, kind=kind, limit=limit + len(here))
        jobs = {**{job.id: job for job in stored}, **here}.values()
        fitting = [job for job in jobs if status in (None, job.status) and kind in (None, job.kind)]
        return sorted(fitting, key=lambda job: job.created_at, reverse=True)[:limit]
