"""What goes wrong on demand, so that tests see how a client takes it."""

import threading
from dataclasses import dataclass
from typing import Literal

Kind = Literal["refuse", "cut_request", "cut_answer", "lose_answer", "delay"]


@dataclass(slots=True)
class Fault:
    """Something that happens to the next `times` requests of an operation; None: to all of them, or to any."""

    kind: Kind
    operation: str | None = None
    times: int | None = 1
    status: int = 503
    message: str = ""
    after_bytes: int = 0
    seconds: float = 0.0


class Faults:
    """The faults that are waiting for their request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Lets a fault wait."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Lets nothing go wrong any more."""
        with self._lock:
            self._waiting.clear()

    def take(self, operation: str | None) -> dict[Kind, Fault]:
        """Returns what happens to a request of this operation: of each kind, the fault that waited longest."""
        with self._lock:
            taken: dict[Kind, Fault] = {}
            for fault in self._waiting:
                if fault.operation in (None, operation):
                    taken.setdefault(fault.kind, fault)
            for fault in taken.values():
                if fault.times is not None:
                    fault.times -= 1
            self._waiting = [fault for fault in self._waiting if fault.times is None or fault.times > 0]
            return taken
