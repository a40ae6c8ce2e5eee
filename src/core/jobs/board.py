"""JobBoard: the jobs that somebody still has to do with, in memory, each written to the table before it shows.

These are the unfinished ones, and finished ones that unfinished ones refer to. Reading takes no lock and never
waits for the disk; its user sees to it that one thread at a time writes.
"""

import logging
from collections.abc import Iterator, Sequence

from src.core.errors import JobsUnavailableError
from src.core.jobs.job import Job, canonical
from src.core.jobs.table import JobTable, read_job

logger = logging.getLogger(__name__)


class JobBoard:
    """What is going on."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._unsaved: set[str] = set()
        self._jobs = {job.id: job for job in table.unfinished()}
        for job_id in self._needed():
            self.recall(job_id)

    def get(self, job_id: str) -> Job | None:
        """Returns a job as it was last written, or None."""
        return self._jobs.get(job_id)

    def recall(self, job_id: str) -> Job | None:
        """Returns a job that may be over, and takes it here again, for another one to refer to."""
        job = self._jobs.get(job_id) or read_job(self._table.path, job_id)
        if job is not None:
            self._jobs[job_id] = job
        return job

    def all(self) -> Sequence[Job]:
        """Returns every job, oldest first."""
        return list(self._jobs.values())  # one step for the interpreter, whatever another thread adds meanwhile

    def unfinished(self) -> Iterator[Job]:
        """Yields those that have not ended."""
        return (job for job in self.all() if not job.finished)

    def children(self, parent: Job) -> list[Job]:
        """Returns a parent's jobs, once each; one whose row somebody removed has failed."""
        return [self._jobs.get(child_id) or _lost(child_id) for child_id in dict.fromkeys(parent.children)]

    def same_work(self) -> dict[tuple[str, str], Job]:
        """Returns the unfinished jobs by what they are to do; one that is being cancelled is nobody's any more."""
        return {work_of(job.kind, job.request): job for job in self.unfinished() if not job.cancelling}

    def add(self, *jobs: Job) -> None:
        """Takes new jobs, or new states; all or none. Raises `JobsUnavailableError` where they cannot be written."""
        changed = {job.id: job for job in jobs}
        self._table.save({**self._leftover(), **changed}.values())
        self._unsaved.clear()
        self._jobs.update(changed)

    def move(self, *jobs: Job) -> None:
        """Takes new states of jobs, also where the disk refuses them: they are written then with the next ones.

        Should the process die before, such a job is run again, which its handler can bear.
        """
        try:
            self.add(*jobs)
        except JobsUnavailableError as exc:
            logger.warning("jobs are not written down for now: %s", exc)
            self._unsaved.update(job.id for job in jobs)
            self._jobs.update({job.id: job for job in jobs})
        if any(job.finished for job in jobs):
            self._forget()

    def save_leftover(self) -> None:
        """Writes what could not be written before."""
        if self._unsaved:
            self.move()

    def prune(self, *, finished_before: float, most: int) -> None:
        """Removes old finished jobs from the table, but none that is needed here."""
        self._table.prune(self._jobs, finished_before=finished_before, most=most)

    def _leftover(self) -> dict[str, Job]:
        return {job_id: self._jobs[job_id] for job_id in self._unsaved}

    def _needed(self) -> set[str]:
        return {other for job in self.unfinished() for other in (*job.children, *job.after)}

    def _forget(self) -> None:
        needed = self._needed() | self._unsaved
        # In one step, for those who look on.
        self._jobs = {job.id: job for job in self.all() if not job.finished or job.id in needed}


def _lost(job_id: str) -> Job:
    return Job(
        id=job_id, kind="", request={}, status="failed", error="It is no longer recorded", error_type="NotFoundError"
    )


def work_of(kind: str, request: object) -> tuple[str, str]:
    """Returns what a job is to do, as something to compare."""
    return kind, canonical(request)
