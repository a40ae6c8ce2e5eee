"""Pickles: recognised by their bytes, whatever they are called, and tried out in a process of their own."""

import pickletools
import re
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from src.core.errors import InvalidInputError
from src.core.sources.confinement import ConfinedDiedError, JsonObject, run_confined

HEAD = 4096
"""Bytes of a file's beginning by which it is recognised."""

_OPCODES_SEEN = 12
_FORBIDDEN = re.compile(r"GLOBAL `?([\w.]+)`?")
_CONVERT = (
    "convert it to safetensors (safetensors.torch.save_file(model.state_dict(), 'model.safetensors')), "
    "or save the plain state dict"
)
_SILENT = 300.0
GIB = 1024**3


def is_pickle(path: Path, head: bytes) -> bool:
    """Whether a file is a pickle of protocol 2 or newer, or an archive of torch's that holds one."""
    if head.startswith(b"PK\3\4"):
        return _holds_pickle(path)
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5 and _reads_as_pickle(head)


def check_pickles(files: Mapping[str, Path], *, memory: int = 4 * GIB, silent_seconds: float = _SILENT) -> None:
    """Raises `InvalidInputError` unless `torch.load(weights_only=True)` takes each file; they are told by their keys.

    It runs in a child process with `memory` bytes above torch's own and above what of a file can stay mapped;
    a child that says nothing for `silent_seconds` is ended.
    """
    if not files:
        return
    names = {str(path): name for name, path in files.items()}
    last = ""

    def heard(message: JsonObject) -> None:
        nonlocal last
        last = message.get("checking", last)

    try:
        result = run_confined(
            "src.core.sources.pickle_check",
            {"files": list(names), "memory": memory},
            heard,
            silent_seconds=silent_seconds,
        )
    except ConfinedDiedError as exc:
        raise _refused({names.get(last, "A file"): f"ended the process that tried to load it ({exc})"}) from exc
    if result["refused"]:
        raise _refused({names[path]: reason for path, reason in result["refused"].items()})


def reason_of(message: str) -> str:
    """Returns why `torch.load` did not take a file, in short."""
    forbidden = _FORBIDDEN.search(message)
    if forbidden:
        return f"refers to {forbidden[1]}, which is more than tensors"
    if "weights_only" in message:  # torch's own advice is to load it without
        return "holds more than tensors"
    return f"cannot be read: {message.strip().partition(chr(10))[0][:200] or 'it ends too early'}"


def _refused(reasons: Mapping[str, str]) -> InvalidInputError:
    told = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    return InvalidInputError(
        f"Not loadable with weights_only=True: {told}. Pickles can run code: {_CONVERT}",
        details={"refused": dict(reasons)},
    )


def _holds_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False


def _reads_as_pickle(head: bytes) -> bool:
    """Whether the bytes go on as operations of a pickle; a table of numbers may begin like one."""
    seen = 0
    try:
        for _ in pickletools.genops(BytesIO(head)):
            seen += 1
            if seen == _OPCODES_SEEN:
                return True
    except Exception:
        # A pickle whose first operation has a long argument is cut off in it.
        return seen >= 2 and len(head) == HEAD
    return True
