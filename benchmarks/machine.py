"""The machine, as far as a figure depends on it, and the memory of processes (Linux)."""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("fastapi", "uvicorn", "torch", "transformers", "mlflow")


def machine() -> dict[str, Any]:
    """Describes this machine and what runs on it."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if "model name" in line), "unknown")
    flags = next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "amx": "amx_bf16" in flags,
        "memory_bytes": int(memory.split()[1]) * 1024,
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def pss(pid: int) -> int:
    """Returns the proportional set size of a process in bytes; 0 for one that has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Returns a process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found
