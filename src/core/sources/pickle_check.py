"""Tries to load pickles as plain weights: `python -m src.core.sources.pickle_check`, a confined child.

Nobody else imports torch for this, and what a hostile file does to this process harms nobody.
"""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.core.sources.confinement import JsonObject, limit_files, limit_memory, serve
from src.core.sources.pickles import reason_of


def check(request: JsonObject, send: Callable[[JsonObject], None]) -> JsonObject:
    """Returns path → reason for each of `files` that `torch.load` does not take with `weights_only`."""
    import torch

    warnings.simplefilter("ignore")
    files = [Path(path) for path in request["files"]]
    # What is mapped privately counts, though it needs no memory: as much as the largest file that can be mapped.
    mapped = max((path.stat().st_size for path in files if zipfile.is_zipfile(path)), default=0)
    limit_files(1_000_000)  # its own log
    limit_memory(request["memory"] + mapped)
    refused = {}
    for path in files:
        send({"checking": str(path)})
        reason = _reason(torch, path)
        if reason:
            refused[str(path)] = reason
    return {"refused": refused}


def _reason(torch: Any, path: Path) -> str | None:
    try:
        torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except MemoryError:
        return "needs too much memory to be read"
    except Exception as exc:  # a hostile file makes it raise anything
        return reason_of(str(exc))
    return None


if __name__ == "__main__":
    serve(check)
