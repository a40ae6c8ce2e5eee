"""Archives of strangers: zip and tar, unpacked within limits, nothing but plain files, each where it says.

Run where memory is limited (see `inspection.py`): a header alone can be made to fill it.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.sources.file_names import checked_path, is_bookkeeping, new_file

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_CHUNK = 1024 * 1024
_HARMLESS = 64 * 1024 * 1024
_RATIO = 200  # weights hardly shrink at all, text to a twentieth; what shrinks to less is made to fill a disk
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upload may hold: bytes in all once it is unpacked, and files."""

    max_bytes: int
    max_files: int


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes] | None]
    refusal: str | None = None


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name."""
    return name.lower().endswith((".zip", *_TAR))


def without_ending(name: str) -> str:
    """Returns a file's name without the ending of an archive, or without its last ending."""
    ending = max((end for end in (".zip", *_TAR) if name.lower().endswith(end)), key=len, default=None)
    return name[: -len(ending)] if ending else name.rpartition(".")[0] or name


def unpack(
    archive: Path, target: Path, limits: Limits, wanted: Callable[[str], bool], moved: Callable[[int], None]
) -> None:
    """Writes the archive's files below `target`; those that `wanted` turns down by path are passed over.

    `moved` is told the bytes as they are written. Raises `InvalidInputError` for an archive that is broken,
    encrypted, or holds links, devices, unsafe or doubled names; `PayloadTooLargeError` past a limit.
    """
    writer = _Writer(target, limits, archive.stat().st_size, moved)
    try:
        with ExitStack() as open_files:
            members, rest = _opened(archive, open_files)
            for member in members:
                writer.check(member)
                if not is_bookkeeping(member.name) and wanted(checked_path(member.name)):
                    writer.write(member)
            writer.read_to_end(rest)
    except _BROKEN as exc:
        raise _unusable(archive, exc) from exc
    except OSError as exc:
        if exc.errno is None:  # gzip's and bz2's own errors
            raise _unusable(archive, exc) from exc
        raise


class _Writer:
    """Writes members, counting what they say and what they hold."""

    def __init__(self, target: Path, limits: Limits, packed: int, moved: Callable[[int], None]) -> None:
        self._target = target
        self._limits = limits
        self._allowed = min(limits.max_bytes, max(_HARMLESS, _RATIO * packed))
        self._moved = moved
        self._announced = self._written = self._count = 0

    def check(self, member: _Member) -> None:
        """Raises for a member that may not be there; counts also those that nobody wants."""
        if member.refusal:
            raise InvalidInputError(f"{member.name!r} {member.refusal}", details={"path": member.name})
        self._count += 1
        self._announced += member.size
        if self._count > self._limits.max_files:
            raise PayloadTooLargeError(f"the archive holds more than {self._limits.max_files} files")
        self._bound(self._announced)

    def write(self, member: _Member) -> None:
        """Unpacks one member."""
        source = member.open()
        if source is None:
            raise tarfile.ReadError(f"{member.name} has no data")
        size = 0
        with source, new_file(self._target, member.name) as file:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                self._written += len(chunk)
                self._bound(self._written)
                file.write(chunk)
                self._moved(len(chunk))
        if size != member.size:
            raise EOFError(f"{member.name} has {size} bytes instead of {member.size}")

    def read_to_end(self, rest: IO[bytes] | None) -> None:
        """Reads what follows the last member, since the check sum of the whole stands behind it."""
        while rest and (chunk := rest.read(_CHUNK)):
            self._announced += len(chunk)
            self._bound(self._announced)

    def _bound(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise PayloadTooLargeError(
                f"the archive unpacks to more than {self._limits.max_bytes} bytes",
                details={"max_bytes": self._limits.max_bytes},
            )
        if size > self._allowed:
            raise PayloadTooLargeError(
                f"the archive unpacks to more than {_RATIO} times its size: send the files themselves"
            )


def _opened(archive: Path, open_files: ExitStack) -> tuple[Iterator[_Member], IO[bytes] | None]:
    """Returns the members, and the stream that is to be read to its end after them."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(open_files.enter_context(zipfile.ZipFile(archive))), None
    if name.endswith(".zst") and "zst" not in tarfile.TarFile.OPEN_METH:
        raise InvalidInputError("zstd archives need Python 3.14 on the server: send .tar, .tar.gz or .zip")
    if name.endswith(".tar"):
        _refuse_cut_off(archive)
    tar = open_files.enter_context(tarfile.TarFile.open(archive))
    return _tar_members(tar), tar.fileobj  # type: ignore[return-value]


def _refuse_cut_off(archive: Path) -> None:
    """Raises `EOFError` where a tar file without compression lacks the zeros that end it."""
    with open(archive, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - tarfile.BLOCKSIZE))
        if file.read().strip(b"\0"):
            raise EOFError("its end is missing")


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        # Unlike `filename`, the original name still has what follows a NUL.
        if not info.is_dir():
            yield _Member(info.orig_filename, info.file_size, lambda info=info: archive.open(info), _zip_refusal(info))  # type: ignore[misc]


def _zip_refusal(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 0x1:
        return "is encrypted: send it without a password"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return None if kind in (0, stat.S_IFREG) else "is a link or a device: send the file itself"


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    while info := archive.next():
        archive.members = []  # type: ignore[attr-defined]  # or every header stays in memory
        if not info.isdir():
            name = info.name.removeprefix("./")
            yield _Member(name, info.size, lambda info=info: archive.extractfile(info), _tar_refusal(info))  # type: ignore[misc]


def _tar_refusal(info: tarfile.TarInfo) -> str | None:
    if not info.isreg():
        return "is a link or a device: send the file itself"
    try:
        tarfile.data_filter(info, "/nowhere")
    except tarfile.FilterError as exc:
        return f"is refused: {exc}"
    return None


def _unusable(archive: Path, exc: Exception) -> InvalidInputError:
    return InvalidInputError(f"{archive.name} cannot be unpacked: {exc or type(exc).__name__}")
