"""The bytes of objects, in files: never more than one block of them is in memory."""

import hashlib
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LETTERS = "0123456789abcdefghijklmnopqrstuv"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that were stored: where, how many, and their md5."""

    address: str
    size: int
    checksum: str


class Blobs:
    """A folder of files that goes away with this object, or with `close`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fake-lakefs-"))
        self.close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def store(self, namespace: str, pieces: Iterable[bytes]) -> Blob:
        """Writes pieces to a new file; leaves nothing where they end in an exception."""
        address = f"local://lkdata/block/{namespace.removeprefix('local://').strip('/')}/data/{_id()}/{_id()}"
        path = self.path(address)
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            with path.open("wb", buffering=0) as file:
                for piece in pieces:
                    digest.update(piece)
                    size += file.write(piece)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Blob(address, size, digest.hexdigest())

    def copy(self, namespace: str, address: str) -> str:
        """Stores the bytes of an object once more; returns their address."""
        stored = self.store(namespace, ())
        shutil.copyfile(self.path(address), self.path(stored.address))
        return stored.address

    def path(self, address: str) -> Path:
        """Returns the file behind an address."""
        return self._folder / address.rpartition("/")[2]

    def flip(self, address: str, offset: int) -> None:
        """Turns over the bits of one byte, as a failing disk would."""
        with self.path(address).open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0xFF]))


def _id() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(20))
