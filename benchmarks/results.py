"""benchmarks/results/*.json: one file per workload, every figure with its raw runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving import ROOT
from benchmarks.targets import TARGETS, Target

FOLDER = ROOT / "benchmarks" / "results"
TITLES = {
    "W1": "No-op: requests per second, to FastAPI with a typed body",
    "W2": "Image classifier of ResNet-50's size: pictures per second, to a tight loop",
    "W3": "Llama of 15 M parameters: tokens per second, to `generate` in a tight loop",
    "W4": "Start and idle memory",
    "W5": "Ollama passed through: requests per second, to asking it directly",
    "W6": "Cold load and swap of 1 GB models",
    "W7": "Upload of 2 GB to the version store",
}


def write(workload: str, result: dict[str, Any], folder: Path = FOLDER) -> None:
    """Writes a workload's result; what a former run wrote is replaced."""
    folder.mkdir(exist_ok=True)
    (folder / f"{workload.lower()}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Returns the results that are there, by workload."""
    paths = {workload: folder / f"{workload.lower()}.json" for workload in TITLES}
    return {workload: json.loads(path.read_text()) for workload, path in paths.items() if path.exists()}


def reached(results: dict[str, dict[str, Any]]) -> Iterator[tuple[Target, float]]:
    """Yields what the results say of the targets; those that were not measured are left out."""
    for target in TARGETS:
        units = results.get(target.workload, {}).get("units", {})
        try:
            yield target, target.value(units)
        except KeyError:
            continue


def ratios(units: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields servers with the ratio of each of their measures."""
    for server, unit in units.items():
        found = {name: measure["ratio"] for name, measure in unit.get("measures", {}).items() if "ratio" in measure}
        if found:
            yield server, found
