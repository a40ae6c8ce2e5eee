"""Durable jobs: long work with progress that survives the end of its process. One service per data folder."""

from src.core.errors import JobsUnavailableError
from src.core.jobs.context import JobCancelled, JobContext, JobHandler, JobInterrupted
from src.core.jobs.job import Job
from src.core.jobs.service import JobService

__all__ = [
    "Job",
    "JobCancelled",
    "JobContext",
    "JobHandler",
    "JobInterrupted",
    "JobService",
    "JobsUnavailableError",
]
