"""`aiml` starts at once, from any folder, and with nothing that it does not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.service import ROOT

SCRIPT = """
import json, sys
sys.argv = ["aiml", "models", "list", "--help"]
from src.cli import main
try:
    main()
except SystemExit as exc:
    assert exc.code == 0, exc.code
print(json.dumps(sorted(sys.modules)))
"""


def test_help_loads_neither_the_platform_nor_a_client() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "src.cli.models" in loaded
    assert loaded.isdisjoint(
        {"httpx", "yaml", "fastapi", "uvicorn", "mlflow", "torch", "src.core.config", "src.inference", "src.api"}
    )


def test_the_launcher_works_from_any_folder(tmp_path: Path) -> None:
    """Also from one with another `src` in it; the virtual environment is a stand-in, the rule is the Makefile's."""
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (binaries / "python").chmod(0o755)
    stranger = tmp_path / "elsewhere" / "src"
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text("raise SystemExit('the wrong src')\n")
    (tmp_path / "venv" / ".installed").touch()
    venv = os.path.relpath(tmp_path / "venv", ROOT)
    subprocess.run(["make", "-s", "-o", f"{venv}/.installed", f"VENV={venv}", f"{venv}/bin/aiml"], cwd=ROOT, check=True)
    done = subprocess.run([binaries / "aiml", "--help"], cwd=stranger.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: aiml" in done.stdout
