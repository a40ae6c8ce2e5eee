"""Two gigabytes into the embedded version store: at what cost in memory, beside a live event loop.

How fast is for `make bench W=W7` to say: here other tests use the disk and the cores, and the deadlines are wide.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.workloads.w7 import SHAPES, measure, ratios

NEEDED = 8_000_000_000  # the source, a copy and the store at a time, and room to breathe


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("shape", SHAPES)
def test_upload_of_two_gigabytes(tmp_path: Path, figure: Callable[[str], None], shape: str) -> None:
    if shutil.disk_usage(tmp_path).free < NEEDED:
        pytest.skip(f"needs {NEEDED:,} bytes of disk")
    measured = measure(tmp_path / "w7", SHAPES[shape], rounds=1)
    compared = ratios(measured)
    for name, value in {**measured, **compared}.items():
        figure(f"{name} {value:.4g}")
    assert compared["upload_speed_to_pass"] >= 0.05
    assert compared["second_upload_to_first"] < 0.5
    assert measured["peak_memory_growth_mb"] < 200
    assert measured["loop_lateness_p99_ms"] < 500
