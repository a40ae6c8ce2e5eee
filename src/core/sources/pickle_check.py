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
    limit_files(1_000_000)  # its own log
    refused = {}
    for path in request["files"]:
        send({"checking": path})
        reason = _reason(torch, Path(path), request["memory"])
        if reason:
            refused[path] = reason
    return {"refused": refused}


def _reason(torch: Any, path: Path, memory: int) -> str | None:
    mapped = zipfile.is_zipfile(path)
    # What is mapped privately counts, though it needs no memory.
    limit_memory(memory + (path.stat().st_size if mapped else 0))
    try:
        torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except MemoryError:
        return "needs too much memory to be read"
    except Exception as exc:  # a hostile file makes it raise anything
        return reason_of(str(exc))
    return None


if __name__ == "__main__":
    serve(check)
