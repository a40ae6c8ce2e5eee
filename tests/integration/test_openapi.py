"""Schemathesis against the service's own OpenAPI document: no server error, no undocumented status."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import Service

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.parametrize("examples", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path, examples: int) -> None:
    service.infer("tiny", max_new_tokens=1)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{service.url}/openapi.json",
            "--checks", CHECKS, "--max-examples", str(examples), "--seed", "7", "--request-timeout", "60",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "failed" not in done.stdout.rpartition("Test cases:")[2]
