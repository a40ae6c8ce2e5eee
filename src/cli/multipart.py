"""Uploads as multipart/form-data, read from disk while they are sent (RFC 7578)."""

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from src.cli.failures import CommandError
from src.core.sources.file_names import is_bookkeeping

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send: its path in the upload, where it lies, its size in bytes."""

    name: str
    path: Path
    size: int


def local_files(path: Path) -> list[LocalFile]:
    """Returns the file at `path`, or all files below that folder, by name; links to files count as those files.

    What git and the Hugging Face client keep for themselves is left out. Raises `CommandError` where there is
    no file, or one that cannot be read.
    """
    found = sorted(_below(path)) if path.is_dir() else [(path.name, path)]
    if not found:
        raise CommandError(f"{path} holds no files to upload")
    return [_local_file(name, file) for name, file in found]


class MultipartBody:
    """One form: text fields, then files under the field `files`.

    Iterating reads the files; `sent` is told the bytes of each piece that was read.
    """

    def __init__(self, fields: dict[str, str], files: list[LocalFile]) -> None:
        self.sent: Callable[[int], None] = lambda count: None
        self._files = files
        self._boundary = secrets.token_hex(16)
        self._fields = b"".join(
            self._head(f'name="{name}"') + value.encode() + b"\r\n" for name, value in fields.items()
        )
        self._heads = [
            self._head(f'name="files"; filename="{_quoted(file.name)}"', "Content-Type: application/octet-stream\r\n")
            for file in files
        ]
        self._end = f"--{self._boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """The value of the header Content-Type."""
        return f"multipart/form-data; boundary={self._boundary}"

    @property
    def length(self) -> int:
        """The whole body's length in bytes."""
        files = sum(len(head) + file.size + 2 for head, file in zip(self._heads, self._files, strict=True))
        return len(self._fields) + files + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        yield self._fields
        for head, file in zip(self._heads, self._files, strict=True):
            yield head
            for piece in _pieces(file):
                yield piece
                self.sent(len(piece))
            yield b"\r\n"
        yield self._end

    def _head(self, disposition: str, more: str = "") -> bytes:
        return f"--{self._boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n".encode()


def _below(root: Path) -> Iterator[tuple[str, Path]]:
    def refuse(error: OSError) -> None:
        raise CommandError(f"{root} cannot be read: {error}") from error

    for here, folders, names in os.walk(root, onerror=refuse):
        folder = Path(here)
        # A link to a folder is not walked into; as a file it is refused.
        entries = [*names, *(name for name in folders if Path(folder, name).is_symlink())]
        for path in (folder / name for name in entries):
            name = path.relative_to(root).as_posix()
            if not is_bookkeeping(name):
                yield name, path


def _local_file(name: str, path: Path) -> LocalFile:
    try:
        name.encode()
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise CommandError(f"{path} is neither a file nor a folder of its own")
        with path.open("rb"):
            return LocalFile(name, path, status.st_size)
    except UnicodeEncodeError as exc:
        raise CommandError(f"The file name {os.fsencode(name)!r} is not valid UTF-8: rename it") from exc
    except OSError as exc:
        raise CommandError(f"{path} cannot be read: {exc.strerror}") from exc


def _pieces(file: LocalFile) -> Iterator[bytes]:
    """Yields a file's bytes; raises `CommandError` where they are no longer as many as was announced."""
    left = file.size
    with file.path.open("rb") as opened:
        while piece := opened.read(_PIECE):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise CommandError(f"{file.path} was changed while it was being sent; the service keeps nothing of it")


def _quoted(name: str) -> str:
    """Returns a file name as browsers write it into a form."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
