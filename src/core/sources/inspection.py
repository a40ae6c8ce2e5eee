"""Looks through what was received: `python -m src.core.sources.inspection`, a confined child.

It unpacks an archive, checks names and formats, hashes, and makes everything safe from a power cut. So that
a hostile archive or JSON can fill no memory but its own, and that the service's threads stay free meanwhile.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.sources.archives import Limits, is_archive, unpack
from src.core.sources.confinement import JsonObject, limit_files, limit_memory, serve
from src.core.sources.file_names import checked_path, clash
from src.core.sources.file_rules import MODEL_FILES, RULES, FileRule, RefusedError
from src.core.sources.formats import check_format
from src.core.sources.full_disk import full_disk_told
from src.core.stores.disk import sync_folder
from src.core.stores.hashing import Meter, in_parallel, sha256_of
from src.core.stores.source_tree import SourceFile, scan

_MEMORY = 3 * 1024**3
_SHOWN = 20
_EVERY = 0.25  # seconds between two messages about progress

Send = Callable[[JsonObject], None]


class Refusals:
    """Files that may not be brought, with the reasons, so that all are told at once."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def kind_of(self, rule: FileRule, path: str) -> str | None:
        """Returns how a file is to be checked; None, with the reason kept, for one that is refused by its name."""
        try:
            return rule.kind_of(path)
        except RefusedError as exc:
            self.reasons[path] = str(exc)
            return None

    def raise_any(self) -> None:
        """Raises `InvalidInputError` that names the refused files."""
        if self.reasons:
            shown = dict(list(self.reasons.items())[:_SHOWN])
            more = f" (and {len(self.reasons) - _SHOWN} more)" if len(self.reasons) > _SHOWN else ""
            told = "; ".join(f"{path} {reason}" for path, reason in shown.items())
            raise InvalidInputError(f"Not taken: {told}{more}", details={"refused": shown})


def inspect(request: JsonObject, send: Send) -> JsonObject:
    """Returns `root` (the folder with the files), `files` (path → sha256, hex) and `pickles` (paths)."""
    limits = Limits(request["max_bytes"], request["max_files"])
    limit_memory(_MEMORY)
    limit_files(limits.max_bytes)
    try:
        with full_disk_told():
            return _inspect(Path(request["folder"]), Path(request["unpacked"]), RULES[request["rule"]], limits, send)
    except MemoryError as exc:
        raise InvalidInputError("the files need too much memory to be read: they are damaged, or made to") from exc


def _inspect(folder: Path, unpacked: Path, rule: FileRule, limits: Limits, send: Send) -> JsonObject:
    refusals = Refusals()
    received = _scanned(folder)
    if len(received) == 1 and is_archive(received[0].path):
        _unpack(received[0].real, unpacked, rule, limits, refusals, send)
        refusals.raise_any()
        folder = _own_folder(unpacked, rule)
        received = _scanned(folder)
    _check_bounds(received, limits)
    kinds = {file: refusals.kind_of(rule, checked_path(file.path)) for file in received}
    refusals.raise_any()
    pickles = _pickles(kinds, refusals, send)
    refusals.raise_any()
    return {"root": str(folder), "files": _hashed(folder, received, send), "pickles": pickles}


def _scanned(folder: Path) -> list[SourceFile]:
    if not any(folder.iterdir()):
        raise InvalidInputError("There are no files in it: nothing was sent, or the archive is empty")
    return scan(folder)


def _unpack(archive: Path, target: Path, rule: FileRule, limits: Limits, refusals: Refusals, send: Send) -> None:
    target.mkdir()
    pace = _Pace(send)
    unpack(
        archive,
        target,
        limits,
        wanted=lambda path: refusals.kind_of(rule, path) is not None,
        moved=lambda count: pace.say({"unpacking": archive.name}),
    )


def _own_folder(unpacked: Path, rule: FileRule) -> Path:
    """Returns where a model's files are: an archive of one folder is that folder."""
    entries = list(unpacked.iterdir())
    alone = len(entries) == 1 and entries[0].is_dir() and rule is MODEL_FILES
    return entries[0] if alone else unpacked


def _check_bounds(files: list[SourceFile], limits: Limits) -> None:
    size = sum(file.size for file in files)
    if size > limits.max_bytes or len(files) > limits.max_files:
        raise PayloadTooLargeError(
            f"{len(files)} files with {size} bytes are too much: at most {limits.max_files} and {limits.max_bytes}",
            details={"bytes": size, "max_bytes": limits.max_bytes},
        )
    twice = clash(file.path for file in files)
    if twice:
        raise InvalidInputError(f"{twice!r} is there twice, or a folder as well", details={"path": twice})


def _pickles(kinds: Mapping[SourceFile, str | None], refusals: Refusals, send: Send) -> list[str]:
    pace = _Pace(send)
    found = []
    for file, kind in kinds.items():
        pace.say({"looking at": file.path})
        try:
            if check_format(file.real, kind or ""):
                found.append(file.path)
        except RefusedError as exc:
            refusals.reasons[file.path] = str(exc)
    return found


def _hashed(root: Path, files: list[SourceFile], send: Send) -> dict[str, str]:
    pace = _Pace(send)
    meter = Meter(sum(file.size for file in files), lambda done, total: pace.say({"done": done, "total": total}))

    def hash_one(file: SourceFile) -> tuple[str, str]:
        with file.open() as source:
            digest = sha256_of(source, file.size, meter)[0]
            os.fsync(source.fileno())
        return file.path, digest

    digests = dict(in_parallel(hash_one, files, meter))
    for folder in {
        root,
        *(parent for file in files for parent in (root / file.path).parents if root in parent.parents),
    }:
        sync_folder(folder)
    return digests


class _Pace:
    """Sends a message now and then, from whichever thread."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._next = 0.0

    def say(self, message: JsonObject) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            self._send(message)


if __name__ == "__main__":
    serve(inspect)
