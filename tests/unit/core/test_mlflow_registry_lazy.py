"""Importing the registry client, and answering from the snapshot, import neither MLflow nor pandas nor torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.core.conftest import Make

HEAVY = ("mlflow", "pandas", "torch", "sqlalchemy", "transformers")
ROOT = Path(__file__).parents[3]


def run(script: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    "module", ["mlflow_registry", "registry.connection", "registry.file", "registry.memory", "registry.writes"]
)
def test_importing_is_light(module: str) -> None:
    script = f"import sys, src.core.{module}; print([name for name in {HEAVY!r} if name in sys.modules])"

    assert run(script) == "[]\n"


def test_the_first_answer_after_a_restart_is_light(make_registry: Make, folder: Path) -> None:
    registry = make_registry()
    registry.register("m", source="lakefs://repo/0123abcd/", tags={}, stage="production")
    registry.close()
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.unit.core.conftest import open_registry\n"
        "registry = open_registry(Path(sys.argv[1]))\n"
        "resolution = registry.resolve('m')\n"
        f"print(resolution.registered.version, registry.state, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )

    assert run(script, str(folder)) == "1 starting []\n"
