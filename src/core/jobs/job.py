"""Job: one piece of long work as it stands. Jobs are never changed, only replaced by newer states of themselves."""

import json
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from src.core.errors import InvalidInputError
from src.core.stores.disk import unique_name

JsonObject = dict[str, Any]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "running", "succeeded", "failed", "cancelled")
FINISHED: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

_PRIVATE = ("notes", "deaths", "furthest", "shared")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. Times are in seconds since 1970, sizes in bytes; `progress` goes from 0 to 1.

    `children` are a parent's jobs, one per entry; `after` those that have to succeed before this one starts;
    `cancelling` says that it was cancelled and has not let go yet; `attempts` counts its starts, `deaths` those
    of them in a row that ended with the process without getting further than `furthest` bytes; `shared`:
    somebody beside its parent asked for it.
    """

    id: str = field(default_factory=unique_name)
    kind: str
    request: JsonObject
    status: Status = "queued"
    parent_id: str | None = None
    children: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    progress: float = 0.0
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None
    result: JsonObject | None = None
    error: str | None = None
    error_type: str | None = None
    error_details: JsonObject | None = None
    attempts: int = 0
    cancelling: bool = False
    notes: JsonObject = field(default_factory=dict)
    deaths: int = 0
    furthest: int = 0
    shared: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has succeeded, failed or been cancelled."""
        return self.status in FINISHED

    def to_json(self) -> JsonObject:
        """Returns what people may see of it, as plain values."""
        return {name: value for name, value in asdict(self).items() if name not in _PRIVATE}

    def to_record(self) -> str:
        """Returns all of it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_record(cls, text: str) -> "Job":
        """Returns the job that `to_record` wrote; fields that only another version of the code knows are left out.

        Raises `ValueError` or `TypeError` for anything else.
        """
        values = json.loads(text)
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        return cls(**{**known, "children": tuple(known["children"]), "after": tuple(known["after"])})


def canonical(value: object) -> str:
    """Returns a value's JSON, the same for equal values; raises `InvalidInputError` for what JSON cannot hold."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"A job's values have to be plain JSON: {exc}") from exc


def as_json_object(value: object) -> JsonObject:
    """Returns a dict as JSON gives it back, sharing nothing with `value`; raises `InvalidInputError`."""
    if not isinstance(value, dict):
        raise InvalidInputError(f"A job's request and result are JSON objects, not {type(value).__name__}")
    plain: JsonObject = json.loads(canonical(value))
    return plain
