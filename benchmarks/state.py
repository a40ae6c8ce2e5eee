"""Measurements that are finished, kept on disk, so that an interrupted run goes on where it was."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KEEPS = 24 * 3600.0  # seconds; a measurement of yesterday is not of this run


def fingerprint(root: Path, **settings: Any) -> str:
    """Returns what must be the same for measurements to belong together: the code that runs, and the settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for folder in ("src", "benchmarks"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".txt") and path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class State:
    """One run's finished measurements by name, in a JSON file that is replaced whole."""

    def __init__(self, path: Path, mark: str) -> None:
        self._path = path
        self._mark = mark
        self._value: dict[str, Any] = {"mark": mark, "started": time.time(), "measured": {}}

    def resume(self) -> int:
        """Takes over what an interrupted run of the same code with the same settings has left; returns how much."""
        try:
            found = json.loads(self._path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return 0
        if found["mark"] != self._mark or time.time() - found["started"] > _KEEPS:
            return 0
        self._value = found
        return len(found["measured"])

    def get(self, name: str) -> Any:
        """Returns a measurement; None where it is still to be made."""
        return self._value["measured"].get(name)

    def put(self, name: str, measured: Any) -> None:
        """Keeps a measurement."""
        self._value["measured"][name] = measured
        self._write()

    def forget(self, workloads: Sequence[str]) -> None:
        """Drops the measurements of workloads that are complete; their names begin with the workload's."""
        measured = self._value["measured"]
        self._value["measured"] = {name: one for name, one in measured.items() if name.split()[0] not in workloads}
        self._write()
        if not self._value["measured"]:
            self._path.unlink()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._value))
        os.replace(new, self._path)
