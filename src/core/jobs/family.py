"""What a parent is, told from its children: how far, and how it ended."""

from collections.abc import Sequence
from dataclasses import replace

from src.core.jobs.job import Job, JsonObject
from src.core.jobs.outcomes import cancelled, failed, over


def as_it_stands(parent: Job, children: Sequence[Job]) -> Job:
    """Returns the parent with the progress of its children, which are given once each."""
    unfinished = [child for child in children if not child.finished]
    started = [child.started_at for child in children if child.started_at is not None]
    speed = sum(child.bytes_per_second for child in unfinished)
    left = sum(max(0, child.bytes_total - child.bytes_done) for child in unfinished)
    countable = speed > 0 and all(child.bytes_total for child in unfinished)
    return replace(
        parent,
        status="running" if len(unfinished) < len(children) or started else "queued",
        bytes_done=sum(child.bytes_done for child in children),
        bytes_total=sum(child.bytes_total for child in children),
        bytes_per_second=speed,
        eta_seconds=left / speed if countable else None,
        progress=sum(1.0 if child.finished else child.progress for child in children) / len(children),
        started_at=min(started, default=None),
    )


def ended(parent: Job, children: Sequence[Job]) -> Job | None:
    """Returns the parent as it ended, or None where that has to wait for some of its children.

    It has failed only where none of them succeeded. A cancelled one waits for its own children alone: one that
    somebody else asked for as well goes on.
    """
    awaited = [child for child in children if belongs_to(child, parent)] if parent.cancelling else children
    if not all(child.finished for child in awaited):
        return None
    by_id = {child.id: child for child in children}
    result = {"jobs": [_entry(by_id[child_id]) for child_id in parent.children]}
    parent = replace(as_it_stands(parent, children), result=result)
    statuses = {child.status for child in children}
    if parent.cancelling or statuses == {"cancelled"}:
        return cancelled(parent)
    if "succeeded" in statuses:
        return over(parent, "succeeded")
    first = next(child for child in children if child.status == "failed")
    message = f"None of the {len(parent.children)} jobs succeeded; the first that failed: {first.error}"
    return failed(parent, message, first.error_type or "InternalError")


def belongs_to(child: Job, parent: Job) -> bool:
    """Whether nobody but the parent asked for the child."""
    return child.parent_id == parent.id and not child.shared


def _entry(child: Job) -> JsonObject:
    entry: JsonObject = {"id": child.id, "status": child.status}
    if child.status == "succeeded":
        return {**entry, "result": child.result}
    return {**entry, "error": child.error, "error_type": child.error_type}
