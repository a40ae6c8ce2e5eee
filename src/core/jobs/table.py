"""JobTable: the file `jobs.db`, a row per job. One process writes it; anybody reads it, also while nobody writes.

A row holds the job as JSON, beside what rows are looked for by. What `save` has returned from survives a
power cut (WAL with synchronous=FULL).
"""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from src.core.errors import JobsUnavailableError
from src.core.jobs.job import FINISHED, Job, canonical
from src.core.registry.sqlite_guard import existing_file_uri
from src.core.stores.disk import make_folder, sync_folder, unique_name

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL,
    job TEXT NOT NULL
)
"""
_SAVE = """
INSERT INTO jobs (id, kind, status, created_at, finished_at, job) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at, job = excluded.job
"""
_PRUNE = """
DELETE FROM jobs WHERE finished_at IS NOT NULL AND id NOT IN (SELECT value FROM json_each(?)) AND (
    finished_at < ?
    OR id NOT IN (SELECT id FROM jobs WHERE finished_at IS NOT NULL ORDER BY created_at DESC LIMIT ?)
)
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again",
    sqlite3.SQLITE_BUSY: "another program holds it locked; close that and try again",
    sqlite3.SQLITE_LOCKED: "another program holds it locked; close that and try again",
    sqlite3.SQLITE_READONLY: "it may not be written; see to its permissions",
    **dict.fromkeys(_DAMAGED, "it is damaged; restart the service, which sets it aside"),
}


class _DamagedError(Exception):
    """The file is no database, or not a sound one."""


class JobTable:
    """The file, open for writing. Its user sees to it that one thread at a time calls, of one process."""

    def __init__(self, path: Path) -> None:
        """Opens the file and makes it where it is missing; a damaged one is set aside for a new one.

        Raises `JobsUnavailableError` where it cannot be opened.
        """
        self.path = path
        with _translated(path):
            make_folder(path.parent)
            try:
                self._connection = _open(path)
            except _DamagedError as exc:
                _set_aside(path, exc)
                self._connection = _open(path)
            sync_folder(path.parent)

    def save(self, jobs: Iterable[Job]) -> None:
        """Writes jobs durably, all or none; raises `JobsUnavailableError`."""
        rows = [_row(job) for job in jobs]
        with _translated(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_SAVE, rows)

    def unfinished(self) -> list[Job]:
        """Returns the jobs that have not ended, oldest first."""
        marks = ", ".join("?" * len(FINISHED))
        with _translated(self.path):
            rows = self._connection.execute(
                f"SELECT job FROM jobs WHERE status NOT IN ({marks}) ORDER BY created_at, rowid", FINISHED
            )
            return [Job.from_record(text) for (text,) in rows]

    def prune(self, needed: Iterable[str], *, finished_before: float, most: int) -> None:
        """Removes finished jobs that are older or more than that, but none of those in `needed`."""
        with _translated(self.path), self._connection:
            self._connection.execute(_PRUNE, (canonical(list(needed)), finished_before, most))

    def close(self) -> None:
        """Closes the file."""
        with _translated(self.path):
            self._connection.close()


def _row(job: Job) -> tuple[object, ...]:
    return job.id, job.kind, job.status, job.created_at, job.finished_at, job.to_record()


def read_job(path: Path, job_id: str) -> Job | None:
    """Returns a job of the file, or None; raises `JobsUnavailableError`."""
    return next(iter(_read(path, "SELECT job FROM jobs WHERE id = ?", (job_id,))), None)


def read_newest(path: Path, *, status: str | None, kind: str | None, limit: int) -> list[Job]:
    """Returns jobs of the file, the newest first; raises `JobsUnavailableError`."""
    return _read(
        path,
        "SELECT job FROM jobs WHERE status = coalesce(?, status) AND kind = coalesce(?, kind) "
        "ORDER BY created_at DESC, rowid DESC LIMIT ?",
        (status, kind, limit),
    )


def _read(path: Path, query: str, values: tuple[object, ...]) -> list[Job]:
    """Reads over a connection of its own: nobody who reads waits for the disk of somebody who writes."""
    if not path.exists():
        return []
    with (
        _translated(path),
        closing(sqlite3.connect(existing_file_uri(path), uri=True, timeout=_BUSY_SECONDS)) as connection,
    ):
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
            return []  # its process died while it made the file
        return [Job.from_record(text) for (text,) in connection.execute(query, values)]


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
    except Exception as exc:
        connection.close()
        if isinstance(exc, TypeError | ValueError | KeyError) or _code(exc) in _DAMAGED:
            raise _DamagedError(str(exc)) from exc
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Raises `ValueError`, `TypeError` or `KeyError` for rows that cannot be read."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise ValueError(verdict)
    connection.execute(_SCHEMA)
    for (text,) in connection.execute("SELECT job FROM jobs"):
        Job.from_record(text)


def _set_aside(path: Path, problem: _DamagedError) -> None:
    aside = path.with_name(f"{path.name}.damaged-{unique_name()}")
    logger.warning(
        "The job list %s is damaged (%s). It is set aside as %s, and a new one is begun: what was queued in it is "
        "lost and has to be submitted again",
        path,
        problem,
        aside.name,
    )
    for suffix in ("-wal", ""):
        if os.path.exists(f"{path}{suffix}"):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        reason = _REASONS.get(_code(exc), str(exc))
        raise JobsUnavailableError(f"The job list {path} cannot be used: {reason}") from exc


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF  # the low byte: https://www.sqlite.org/rescode.html
