"""The files below a folder that is to be committed.

Everything counts, hidden files too, except `.git` folders, `.cache/huggingface` (the download's
own bookkeeping) and the record of where a staged folder comes from. Folders without files leave no
trace. A link to a file inside the folder is taken
as that file; any other link, and whatever is not a plain file, is refused.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from src.core.errors import InvalidInputError, NotFoundError

SOURCE_RECORD = ".aiml-source.json"
"""The file at the root of a staged folder that says where it comes from; it is never committed."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to commit: its path in the tree, where its bytes are, and its size when it was found."""

    path: str
    real: Path
    size: int

    def open(self) -> FileIO:
        """Opens the file; refuses what has been put in its place since it was found."""
        try:
            # NONBLOCK: opening a pipe must not wait for its writer.
            descriptor = os.open(self.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as exc:
            raise InvalidInputError(f"{self.path!r} cannot be read: {exc}", details={"path": self.path}) from exc
        file = FileIO(descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise _refused(self.path, "is not a plain file")
        return file


def scan(source: Path) -> list[SourceFile]:
    """Returns the files below `source`, sorted by path.

    Raises `NotFoundError` where it is missing, and `InvalidInputError` where it is not a folder,
    holds no file, or holds something that cannot be committed.
    """
    if not source.exists():
        raise NotFoundError(f"{source} does not exist")
    if not source.is_dir():
        raise InvalidInputError(f"{source} is not a folder")
    try:
        files = sorted(_below(source.resolve()), key=lambda file: file.path)
    except OSError as exc:
        raise InvalidInputError(f"{source} cannot be read: {exc}") from exc
    if not files:
        raise InvalidInputError(f"{source} holds no files to commit")
    return files


def _below(root: Path) -> Iterator[SourceFile]:
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = _tree_path(entry, root)
                if path == SOURCE_RECORD:
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield _found(entry, path, root)
                elif not _is_bookkeeping(path):
                    folders.append(Path(entry.path))


def _tree_path(entry: os.DirEntry[str], root: Path) -> str:
    path = Path(entry.path).relative_to(root).as_posix()
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"the file name {os.fsencode(path)!r} is not valid UTF-8: rename it") from exc
    return path


def _is_bookkeeping(path: str) -> bool:
    return path.split("/")[-1] == ".git" or path.split("/")[-2:] == [".cache", "huggingface"]


def _found(entry: os.DirEntry[str], path: str, root: Path) -> SourceFile:
    real = Path(entry.path)
    if entry.is_symlink():
        real = _followed(entry, path, root)
    status = real.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is neither a plain file nor a folder of its own")
    return SourceFile(path, real, status.st_size)


def _followed(entry: os.DirEntry[str], path: str, root: Path) -> Path:
    try:
        real = Path(os.path.realpath(entry.path, strict=True))
    except OSError as exc:
        raise _refused(path, "is a link that leads nowhere") from exc
    if not real.is_relative_to(root):
        raise _refused(path, "is a link that leads out of the folder: put the file itself there")
    return real


def _refused(path: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"{path!r} {why}", details={"path": path})
