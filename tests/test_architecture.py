"""What holds for the whole of the code: light imports, layers, pinned dependencies without addresses, short files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "mlflow", "onnxruntime", "pandas", "tokenizers", "safetensors", "accelerate", "scipy")
# Written in halves: this file is looked through too.
INDEX_HOSTS = tuple(
    first + last
    for first, last in [
        ("files.python", "hosted"),
        ("pypi.", "org"),
        ("pypi.", "python"),
        ("download.py", "torch"),
        ("registry.npm", "js"),
        ("registry.yarn", "pkg"),
        ("deb.deb", "ian.org"),
        ("/simp", "le/"),
    ]
)
LOCKS = ("uv.lock", "requirements.lock.txt", "tests/requirements.lock.txt")
LONGEST = 400


def committed() -> list[Path]:
    """Returns the files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in found if path.is_file()]


def loaded_by(statement: str) -> set[str]:
    """Returns the top-level modules that a fresh interpreter has after a statement."""
    script = (
        f"{statement}; import json, sys; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import src.main",
        "from src.main import create_app; create_app()",
        "from src.inference import inference_manager",
        "from src.core.model_manager import model_manager",
        "from src.inference.engines.transformers import TransformersEngine; TransformersEngine().config",
        "from src.inference.engines.ollama import OllamaEngine; OllamaEngine().config",
        "from src.inference.registry import model_registry; model_registry.tasks()",
    ],
)
def test_an_import_is_light(statement: str) -> None:
    modules = loaded_by(statement)
    assert "src" in modules
    assert modules.isdisjoint(HEAVY)


def test_an_error_class_costs_no_web_framework() -> None:
    assert loaded_by("from src.inference import InferenceError").isdisjoint(
        {"fastapi", "starlette", "httpx", "pydantic"}
    )


def test_the_layers_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_names_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("\n") > 50
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text)


def test_no_committed_file_names_a_package_index() -> None:
    naming = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in committed()
        for host in INDEX_HOSTS
        if host in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert naming == []


def test_no_source_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "src").rglob("*.py")}
    assert len(lengths) > 50
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LONGEST} == {}
