"""`python -m benchmarks [--workload W1] [--seconds N]`: measures, prints, keeps. The last line is one JSON object."""

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.running import ROOT, machine

WORKLOADS = ("W1", "W4", "W6", "W7")


def main() -> None:
    """Runs the workloads asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="one of them; several times for more")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement under load")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "workloads": {},
    }
    with tempfile.TemporaryDirectory(prefix="aiml-bench-") as folder:
        for name in arguments.workload or WORKLOADS:
            module = importlib.import_module(f"benchmarks.workloads.{name.lower()}")
            print(f"{name}: {module.__doc__.strip()}", flush=True)
            outcome = results["workloads"][name] = module.run(Path(folder), arguments.seconds)
            print(json.dumps(outcome["figures"], indent=2), flush=True)
    path = ROOT / "benchmarks" / "results" / f"{'-'.join(results['workloads']).lower()}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({name: outcome["ratios"] for name, outcome in results["workloads"].items()}))


if __name__ == "__main__":
    main()
