"""Runner: carries out the jobs of one data folder, each in a daemon thread, a few at a time.

Whatever happens to a job goes through `_lock`, is written down first, and then lets the next ones begin. There
is no thread and no timer while there is nothing to do.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from src.core.errors import DrainingError, InvalidInputError, JobsUnavailableError, NotFoundError, QueueFullError
from src.core.jobs import family, outcomes
from src.core.jobs.board import JobBoard, work_of
from src.core.jobs.context import JobContext, JobHandler
from src.core.jobs.job import Job, JsonObject, as_json_object

logger = logging.getLogger(__name__)

Entry = tuple[str, JsonObject]
"""A job to be: its kind and its request."""


class Runner:
    """Takes the board over, with whatever a process before this one left on it."""

    def __init__(
        self,
        board: JobBoard,
        handlers: Mapping[str, JobHandler],
        *,
        concurrency: int,
        most_unfinished: int,
        let_go: Callable[[], None],
    ) -> None:
        """`let_go` is called once nothing more is written: when it has stopped and the last handler has ended."""
        self._board = board
        self._handlers = handlers
        self._concurrency = concurrency
        self._most_unfinished = most_unfinished
        self._let_go = let_go
        self._lock = threading.RLock()
        self._contexts: dict[str, JobContext] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = False
        self._closed = False
        self.ended = threading.Condition()

    # ------------------------------------------------------------------ looking; no lock, no disk

    def find(self, job_id: str) -> Job | None:
        """Returns a job that is not over, or that an unfinished one refers to, as it is now."""
        while (job := self._board.get(job_id)) is not None:
            now = self._as_it_stands(job)
            if self._board.get(job_id) is job:  # or it has ended meanwhile, and what belongs to it may be gone
                return now
        return None

    def all(self) -> list[Job]:
        """Returns every job that `find` finds, oldest first."""
        return [now for job in self._board.all() if (now := self.find(job.id)) is not None]

    def _as_it_stands(self, job: Job) -> Job:
        if job.finished:
            return job
        if job.children:
            return family.as_it_stands(job, [self.find(child.id) or child for child in self._board.children(job)])
        context = self._contexts.get(job.id)
        return job if context is None else context.measured(job)

    # ------------------------------------------------------------------ asking

    def submit(self, kind: str, request: JsonObject, after: Sequence[str]) -> str:
        """Takes a job and returns its id; see `JobService.submit`."""
        with self._lock:
            self._refuse_while_stopping()
            job = self._board.same_work().get(work_of(kind, request))
            if job is None:
                self._refuse_more_than(1)
                job = Job(kind=kind, request=request, after=tuple(self._known(job_id) for job_id in after))
                self._board.add(job)
            elif job.parent_id is not None and not job.shared:
                self._board.add(replace(job, shared=True))
            self._advance()
        return job.id

    def submit_batch(self, kind: str, entries: Sequence[Entry]) -> str:
        """Takes a parent and its children, and returns the parent's id; see `JobService.submit_batch`."""
        request = {"jobs": [{"kind": child_kind, "request": child} for child_kind, child in entries]}
        with self._lock:
            self._refuse_while_stopping()
            unfinished = self._board.same_work()
            parent = unfinished.get(work_of(kind, request))
            if parent is None:
                self._refuse_more_than(1 + len(entries))
                parent = Job(kind=kind, request=request)
                children = [_child(parent, entry, unfinished) for entry in entries]
                parent = replace(parent, children=tuple(child.id for child in children))
                self._board.add(parent, *{child.id: child for child in children}.values())
                self._advance()
        return parent.id

    def cancel(self, job_id: str) -> bool:
        """Cancels a job; returns False for one that is over, or that there is not."""
        with self._lock:
            self._refuse_while_stopping()
            job = self._board.get(job_id)
            if job is None or job.finished:
                return False
            self._cancel(job)
            self._advance()
        return True

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            raise DrainingError("The service is stopping; try again when it is back")

    def _refuse_more_than(self, count: int) -> None:
        if sum(1 for _ in self._board.unfinished()) + count > self._most_unfinished:
            raise QueueFullError(
                f"There would be more than {self._most_unfinished} unfinished jobs; wait for some of them to end, or "
                "cancel some"
            )

    def _known(self, job_id: str) -> str:
        if self._board.recall(job_id) is None:
            raise NotFoundError(f"There is no job '{job_id}' to wait for")
        return job_id

    def _cancel(self, job: Job) -> None:
        own = [child for child in self._board.children(job) if not child.finished and family.belongs_to(child, job)]
        for each in (job, *own):  # first, since the disk may take its time
            context = self._contexts.get(each.id)
            if context is not None:
                context.cancelled = True
        self._board.move(*(replace(each, cancelling=True) for each in (job, *own)))

    # ------------------------------------------------------------------ carrying out

    def recover(self) -> None:
        """Takes up what another process left; called once, first."""
        with self._lock:
            died = [job for job in self._board.unfinished() if job.status == "running"]
            self._board.move(*(outcomes.after_a_death(job) for job in died))
            self._advance()

    def stop(self, timeout: float) -> None:
        """Interrupts the handlers and waits so long for them. Their jobs are left for the next start."""
        with self._lock:
            self._stopping = True
            for context in self._contexts.values():
                context.interrupted = True
            threads = dict(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            if self._contexts:
                logger.warning("jobs still run after the stop: %s", ", ".join(self._contexts))
            else:
                self._close()

    def _advance(self) -> None:
        """Ends what can end and starts what can start, oldest first."""
        while self._settle() or self._start_one():
            pass

    def _settle(self) -> bool:
        """Ends jobs that end without a handler; returns whether there were any, since others may hang on them."""
        found = [final for job in self._board.unfinished() if (final := self._final_state(job)) is not None]
        self._end(*found)
        return bool(found)

    def _final_state(self, job: Job) -> Job | None:
        if job.children:
            return family.ended(job, self._board.children(job))
        if job.status != "queued":
            return None
        awaited = [other for job_id in job.after if (other := self._board.get(job_id)) is not None]
        return outcomes.without_running(job, awaited, self._handlers)

    def _start_one(self) -> bool:
        job = next((job for job in self._board.unfinished() if self._may_start(job)), None)
        if job is not None:
            self._start(job)
        return job is not None

    def _may_start(self, job: Job) -> bool:
        if self._stopping or job.status != "queued" or job.children:
            return False
        if job.cancelling:
            return True
        if len(self._contexts) >= self._concurrency:
            return False
        awaited = (self._board.get(job_id) for job_id in job.after)
        busy = (self._board.get(job_id) for job_id in self._contexts)
        # The same work may still be under way, cancelled: two at once would get in each other's way.
        return all(other is None or other.finished for other in awaited) and not any(
            other is not None and other.kind == job.kind and other.request == job.request for other in busy
        )

    def _start(self, job: Job) -> None:
        job = replace(job, status="running", attempts=job.attempts + 1, started_at=time.time())
        self._board.move(job)
        context = self._contexts[job.id] = JobContext(
            job, lambda notes: self._keep_notes(job.id, notes), lambda done: self._keep_furthest(job.id, done)
        )
        thread = threading.Thread(target=self._run, args=(job, context), name=f"aiml-job-{job.kind}", daemon=True)
        self._threads[job.id] = thread
        try:
            thread.start()
        except RuntimeError as exc:  # the system gives no more threads
            self._let_go_of(job, context, exc)

    def _run(self, job: Job, context: JobContext) -> None:
        result: JsonObject | BaseException
        try:
            result = self._carry_out(job, context)
        except BaseException as exc:
            result = exc
        with self._lock:
            self._let_go_of(job, context, result)
            self._advance()
            if self._stopping and not self._contexts:
                self._close()

    def _carry_out(self, job: Job, context: JobContext) -> JsonObject:
        result = self._handlers[job.kind](context, as_json_object(job.request))
        try:
            return as_json_object(result)
        except InvalidInputError as exc:
            raise TypeError(f"the handler of {job.kind} gave no plain JSON: {exc.message}") from exc

    def _let_go_of(self, job: Job, context: JobContext, result: JsonObject | BaseException) -> None:
        job = context.measured(self._board.get(job.id) or job)
        if isinstance(result, BaseException):
            self._end(outcomes.raised(job, context, result))
        else:
            self._end(outcomes.succeeded(job, result))
        del self._contexts[job.id], self._threads[job.id]

    def _keep_notes(self, job_id: str, notes: JsonObject) -> None:
        with self._lock:
            job = self._board.get(job_id)
            if job is not None:
                self._board.add(replace(job, notes=as_json_object(notes)))

    def _keep_furthest(self, job_id: str, done: int) -> None:
        """Notes that a job got further than ever: deaths so far were no fault of its own."""
        with self._lock, suppress(JobsUnavailableError):
            job = self._board.get(job_id)
            if job is not None:
                self._board.add(replace(job, furthest=done, deaths=0))

    def _end(self, *jobs: Job) -> None:
        """Takes the last states of jobs, in this process at least."""
        self._board.move(*jobs)
        with self.ended:
            self.ended.notify_all()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._board.save_leftover()
            self._let_go()


def _child(parent: Job, entry: Entry, known: dict[tuple[str, str], Job]) -> Job:
    """Returns the unfinished job that does the same, now shared, or a new one."""
    work = work_of(*entry)
    same = known.get(work)
    if same is None:
        same = Job(kind=entry[0], request=entry[1], parent_id=parent.id)
        known[work] = same
    elif same.parent_id != parent.id:
        same = replace(same, shared=True)
    return same
