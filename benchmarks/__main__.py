"""`python -m benchmarks [--workload W1] [--peers] [--seconds N] [--fresh]`: measures, prints, keeps.

A run that was interrupted goes on where it was. The last line is one JSON object with the ratios.
"""

import argparse
import fcntl
import importlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report, results
from benchmarks.bench import CACHE, Bench, Unit
from benchmarks.machine import machine
from benchmarks.peers.environment import PeerUnavailableError
from benchmarks.serving import ROOT
from benchmarks.state import State, fingerprint

Planned = list[tuple[str, Unit]]


def main() -> None:
    """Runs the workloads asked for; exits with 1 where one of ours could not be measured."""
    arguments = _arguments()
    # Told to stop, it takes its servers along, as it does for Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; run it again and it goes on from here"))
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another run is under way in this folder, and the two would disturb each other")
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    state = State(CACHE / "state.json", fingerprint(ROOT, seconds=arguments.seconds))
    if not arguments.fresh and (kept := state.resume()):
        print(f"going on with an interrupted run: {kept} measurements are kept (--fresh starts anew)")
    with tempfile.TemporaryDirectory(prefix="aiml-bench-") as folder:
        bench = Bench(Path(folder), arguments.seconds, arguments.peers, state)
        names = arguments.workload or list(results.TITLES)
        planned = [(name, unit) for name in names for unit in _module(name).units(bench)]
        failed = _measure(planned, state)
    found = {name: _result(name, planned, state, arguments) for name in names}
    for name, result in found.items():
        results.write(name, result)
    report.write(results.read())
    _print(found)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}; run it again and it goes on from here")
    state.forget(names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--workload", action="append", choices=results.TITLES, help="one; several times for more")
    parser.add_argument("--peers", action="store_true", help="measure the servers that people use today too")
    parser.add_argument("--seconds", type=float, default=2.5, help="length of each measurement under load")
    parser.add_argument("--fresh", action="store_true", help="forget what an interrupted run has measured")
    return parser.parse_args()


def _module(workload: str) -> Any:
    return importlib.import_module(f"benchmarks.workloads.{workload.lower()}")


def _measure(planned: Planned, state: State) -> list[str]:
    """Measures what is not measured yet; returns what failed of ours. A peer that fails is kept with its reason."""
    failed = list[str]()
    open_units = [(name, unit) for name, unit in planned if state.get(f"{name} {unit.name}") is None]
    left = sum(unit.seconds for _, unit in open_units)
    print(f"{len(open_units)} measurements, about {_minutes(left)} in all", flush=True)
    for number, (name, unit) in enumerate(open_units, 1):
        print(f"[{number}/{len(open_units)}, {_minutes(left)} left] {name} {unit.name}", flush=True)
        started = time.perf_counter()
        try:
            outcome = unit.measure()
        except (PeerUnavailableError, RuntimeError, OSError) as exc:
            print(f"  failed: {exc}", flush=True)
            if unit.name.startswith("ours"):
                failed.append(f"{name} {unit.name}")
                continue
            outcome = {"unavailable": str(exc)}
        outcome["took_seconds"] = round(time.perf_counter() - started, 1)
        state.put(f"{name} {unit.name}", outcome)
        left -= unit.seconds
        _print_unit(outcome)
    return failed


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(0.0, seconds):.0f} s"


def _print_unit(outcome: dict[str, Any]) -> None:
    shown = {name: round(m["ratio"], 3) for name, m in outcome.get("measures", {}).items() if "ratio" in m}
    shown = shown or {name: round(value, 3) for name, value in outcome.items() if isinstance(value, int | float)}
    print("  " + ", ".join(f"{name} {value:g}" for name, value in shown.items()), flush=True)


def _result(workload: str, planned: Planned, state: State, arguments: argparse.Namespace) -> dict[str, Any]:
    units = {unit.name: state.get(f"{name} {unit.name}") for name, unit in planned if name == workload}
    return {
        "workload": workload,
        "title": results.TITLES[workload],
        "method": _module(workload).__doc__,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": arguments.seconds,
        "machine": machine(),
        "units": {name: unit for name, unit in units.items() if unit is not None},
    }


def _print(found: dict[str, dict[str, Any]]) -> None:
    print()
    rows: Sequence[tuple[str, ...]] = [
        (t.workload, t.words, t.bound(), f"{value:.3g}{t.unit}", "" if t.reached(value) else "MISSED")
        for t, value in results.reached(found)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(json.dumps({name: dict(results.ratios(result["units"])) for name, result in found.items()}))


if __name__ == "__main__":
    main()
