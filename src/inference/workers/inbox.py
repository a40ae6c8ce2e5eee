"""The requests that wait for a worker's model: by priority, and none of them forever."""

import time
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from src.core.errors import CancelledError, PlatformError
from src.inference.types import JsonObject
from src.inference.workers.host import ModelHost, Prepared
from src.inference.workers.messages import Frame

SECONDS_A_STEP = 1.0
"""How long a request waits until it counts as one priority higher."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits; what was found out about it stays with it until its turn."""

    frame: Frame
    arrived: float
    turn: float
    asked: JsonObject | None = None
    prepared: Prepared | None = None
    error: PlatformError | None = None

    @property
    def id(self) -> int:
        """The request's id."""
        return self.frame.id

    @property
    def value(self) -> JsonObject:
        """`data`, `options` and, where its caller follows the answer, `stream`."""
        if self.asked is None:
            try:
                value: Any = self.frame.value()  # arrays in shared memory can be taken once
            except FileNotFoundError:
                # Whoever leaves takes the arrays along; the word of it is on its way.
                raise CancelledError("the request was withdrawn") from None
            self.asked = value
        return self.asked

    @property
    def streams(self) -> bool:
        """Whether its caller follows the answer as it comes."""
        return bool(self.value.get("stream"))

    def prepare(self, host: ModelHost) -> Prepared | None:
        """Returns the request as its handler prepares it; None, with `error` set, where it cannot be."""
        if self.prepared is None and self.error is None:
            try:
                self.prepared = host.prepare(self.value["data"], self.value["options"])
            except PlatformError as exc:
                self.error = exc
        return self.prepared


class Inbox:
    """Requests in the order of their turns: the priority counts, and so does each second waited."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._waiting))

    def add(self, frame: Frame) -> None:
        """Takes a request in, behind those of the same priority."""
        now = time.monotonic()
        # Priority plus time waited, compared: the present moment is the same for all, so it falls out.
        waiting = Waiting(frame, now, now - frame.priority * SECONDS_A_STEP)
        if self._waiting and self._waiting[-1].turn > waiting.turn:
            insort(self._waiting, waiting, key=lambda each: each.turn)
        else:
            self._waiting.append(waiting)

    def first(self) -> Waiting:
        """Returns the one whose turn it is, which stays."""
        return self._waiting[0]

    def pop(self) -> Waiting:
        """Takes the one out whose turn it is."""
        return self._waiting.pop(0)

    def take(self, waiting: Waiting) -> None:
        """Takes one out that is in."""
        self._waiting.remove(waiting)

    def cancel(self, request_id: int) -> bool:
        """Drops a request; False if it is not in."""
        for waiting in self._waiting:
            if waiting.id == request_id:
                self._waiting.remove(waiting)
                return True
        return False
