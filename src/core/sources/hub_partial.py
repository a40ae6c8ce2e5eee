"""A download on its way: what has arrived below the partial folder, and who may work on it.

lock                    held by whoever works here
arriving/<key>          files that are not checked yet, whole or not, by content: no two revisions ever mix
tree/<path>             files whose digest was found right
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from src.core.sources.hub_files import HubFile
from src.core.stores.disk import sync_folder

_POLL = 0.1


class PartialFolder:
    """The files of one download; only its holder may call what changes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tree = folder / "tree"
        self._arriving = folder / "arriving"

    def arriving(self, file: HubFile) -> Path:
        """Returns where the file arrives; one that had arrived before is there again, to be checked."""
        self._arriving.mkdir(parents=True, exist_ok=True)
        path = self._arriving / file.key
        whole = self.tree / file.path
        if whole.is_file():
            os.replace(whole, path)
        if path.is_file() and path.stat().st_size > file.size:
            path.unlink()
        return path

    def arrived(self, file: HubFile) -> None:
        """Puts a checked file, whose bytes are on disk already, where it belongs."""
        target = self.tree / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._arriving / file.key, target)

    def present(self, files: Sequence[HubFile]) -> int:
        """Returns how many bytes of these files are there, checked or not."""
        return sum(
            max(_size(self.tree / file.path, file.size), _size(self._arriving / file.key, file.size)) for file in files
        )

    def prune(self, files: Sequence[HubFile]) -> None:
        """Removes what belongs to none of these files, such as those of another revision."""
        keys, paths = {file.key for file in files}, {file.path: file.size for file in files}
        for path in self._arriving.glob("*"):
            if path.name not in keys:
                path.unlink()
        for folder, _, names in os.walk(self.tree, topdown=False):
            for path in (Path(folder) / name for name in names):
                if paths.get(path.relative_to(self.tree).as_posix()) != path.stat().st_size:
                    path.unlink()
            if not os.listdir(folder):
                os.rmdir(folder)

    def sync(self) -> None:
        """Makes the folders of the tree survive a power cut, as its files do."""
        for folder, _, _ in os.walk(self.tree):
            sync_folder(Path(folder))

    def remove(self) -> None:
        """Removes everything, the lock last: until then nobody else begins here."""
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.rmtree(self._arriving, ignore_errors=True)
        (self._folder / "lock").unlink(missing_ok=True)
        try:
            self._folder.rmdir()
        except OSError:
            pass  # somebody has begun


@contextmanager
def holding(make_folder: Callable[[], Path], waiting: Callable[[PartialFolder], None]) -> Iterator[PartialFolder]:
    """Holds a partial folder, which `make_folder` makes where it is missing, among threads and processes.

    While somebody else holds it, `waiting` is called several times a second; what it raises ends the wait.
    """
    while True:
        try:
            folder = make_folder()
        except FileExistsError:  # its holder removed it just when it was found to be there
            continue
        descriptor = _try_to_hold(folder / "lock")
        if descriptor is not None:
            break
        waiting(PartialFolder(folder))
        time.sleep(_POLL)
    try:
        yield PartialFolder(folder)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # by hand: a child forked meanwhile holds a copy
        os.close(descriptor)


def _try_to_hold(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError:  # its holder has just removed the folder
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The former holder may have removed the file before letting go of it.
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _size(path: Path, most: int) -> int:
    try:
        return min(path.stat().st_size, most)
    except (FileNotFoundError, NotADirectoryError):
        return 0
