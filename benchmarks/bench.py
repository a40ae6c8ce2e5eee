"""What a workload is given, and what it is made of."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import models
from benchmarks.serving import ROOT
from benchmarks.state import State

CACHE = ROOT / ".make" / "bench"
ROUNDS = 3


@dataclass(frozen=True)
class Unit:
    """One server's measurement in a workload; `seconds` is about how long it takes."""

    name: str
    seconds: float
    measure: Callable[[], dict[str, Any]]


@dataclass
class Bench:
    """One run: a scratch folder of its own, the length of each measurement in seconds, whether peers take part."""

    folder: Path
    seconds: float
    peers: bool
    state: State
    rounds: int = ROUNDS

    def shorter(self) -> "Bench":
        """Returns the run as peers see it: what is far behind needs less time to be told apart."""
        return replace(self, seconds=0.6 * self.seconds)

    @cached_property
    def models(self) -> Path:
        """The folder with the models and inputs of W2 and W3."""
        return models.made(CACHE)

    def fresh(self, name: str) -> Path:
        """Returns an empty data folder; what a former server has left in it is removed."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def once(self, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns what is found once in a run, whatever interrupts it."""
        found: dict[str, Any] | None = self.state.get(name)
        if found is None:
            found = find()
            self.state.put(name, found)
        return found
