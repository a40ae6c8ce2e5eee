"""A peer's environment: made once below .make/peers/<name> from its pinned requirements, by uv."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.serving import ROOT

_FOLDER = ROOT / ".make" / "peers"
_PINS = Path(__file__).resolve().parent


class PeerUnavailableError(Exception):
    """A peer cannot be installed here."""


def python_of(name: str) -> Path:
    """Returns the interpreter of a peer's environment, which is made or renewed where its pins have changed.

    Raises `PeerUnavailableError` with the reason.
    """
    pins = _PINS / name / "requirements.txt"
    folder = _FOLDER / name
    mark, wanted = folder / ".installed", hashlib.sha256(pins.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"  installing {name} into {folder.relative_to(ROOT)}", flush=True)
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--compile-bytecode", "--python", str(python), "--requirements", str(pins))
        mark.write_text(wanted)
    return python


def version_of(name: str, package: str) -> str:
    """Returns the pinned version of a package."""
    lines = (_PINS / name / "requirements.txt").read_text().splitlines()
    return next(line.partition("==")[2].split()[0] for line in lines if line.lower().startswith(f"{package}=="))


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv") or str(ROOT / ".make" / "uv" / "bin" / "uv")
    done = subprocess.run(["nice", uv, "--quiet", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PeerUnavailableError(done.stderr.strip()[-1000:] or f"uv {arguments[0]} failed")
