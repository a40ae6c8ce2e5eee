"""Names of files that come from strangers: a relative POSIX path that is safe on every system, or an error."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from src.core.errors import InvalidInputError
from src.core.stores.source_tree import SOURCE_RECORD

_MAX_PATH = 1024  # bytes
_MAX_PART = 255  # bytes; what common filesystems take
_MAX_DEPTH = 20
_SHOWN = 80
# Windows takes these for devices, whatever their ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}


def checked_path(name: str) -> str:
    """Returns the name unchanged where it is a path that can be written below a folder; may hold sub folders.

    Raises `InvalidInputError` for what leads elsewhere (`..`, absolute, a drive, a backslash), for what some
    system cannot write, and for names that the platform keeps for itself.
    """
    why = _refusal(name)
    if why:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        raise InvalidInputError(f"the file name {shown!r} {why}", details={"path": shown})
    return name


def is_bookkeeping(path: str) -> bool:
    """Whether a file is what git, the hub's client or a file manager keeps beside the files themselves."""
    parts = path.split("/")
    if ".git" in parts or parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db"):
        return True
    return path == SOURCE_RECORD or "/.cache/huggingface/" in f"/{path}"


def new_file(folder: Path, path: str) -> BinaryIO:
    """Opens a file that is not there yet, below a folder; raises `InvalidInputError` where the name is taken."""
    try:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        return open(folder / path, "xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
        raise InvalidInputError(f"{path!r} is there twice, or is a folder as well", details={"path": path}) from exc


def clash(paths: Iterable[str]) -> str | None:
    """Returns the first path that is there twice, or that another one needs as a folder; None without one."""
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        above = _folders(path)
        if path in seen or path in folders or not seen.isdisjoint(above):
            return path
        seen.add(path)
        folders.update(above)
    return None


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _refusal(name: str) -> str | None:
    if not name:
        return "is empty"
    if not name.isprintable():
        return "holds characters that cannot be printed"
    if "\\" in name or ":" in name:
        return "holds a backslash or a colon: write sub folders with '/'"
    if name.startswith("/"):
        return "is absolute: give a path relative to the model's own folder"
    parts = name.split("/")
    if len(name.encode()) > _MAX_PATH or len(parts) > _MAX_DEPTH:
        return f"is too long: at most {_MAX_PATH} bytes and {_MAX_DEPTH} levels"
    if is_bookkeeping(name):
        return "is kept for bookkeeping: leave the file out"
    return next((why for part in parts if (why := _part_refusal(part))), None)


def _part_refusal(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "leads out of its folder, or nowhere: leave '.', '..' and doubled '/' out"
    if len(part.encode()) > _MAX_PART:
        return f"is too long: at most {_MAX_PART} bytes between two '/'"
    if part != part.strip() or part.endswith("."):
        return "begins or ends with a space or ends with a dot, which some systems drop"
    return "is a device on Windows: rename it" if part.split(".")[0].lower() in _DEVICES else None
