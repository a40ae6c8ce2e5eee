"""Users' own files as a source: looked through in confined processes, then staged whole, or not at all."""

import shutil
import time
from pathlib import Path

from src.core.errors import EngineError, InvalidInputError
from src.core.sources.archives import without_ending
from src.core.sources.confinement import ConfinedDiedError, JsonObject, run_confined
from src.core.sources.file_rules import RULES
from src.core.sources.full_disk import full_disk_told
from src.core.sources.pickles import GIB, check_pickles
from src.core.sources.staging import SourceRecord, Staged, StagingArea, local_name
from src.core.stores.base import Progress
from src.core.stores.disk import unique_name

ARRIVING = ".{}.upload"
_UNPACKED = ".{}.unpacked"
_SILENT = 600.0  # seconds; a slow disk takes long over one large file


class UploadSource:
    """Takes in files of models (`kind="model"`) or of datasets (`kind="dataset"`).

    `max_bytes` bounds an upload, also once it is unpacked; `pickle_memory` is what an old pickle, which cannot
    be mapped, may need to be tried out.
    """

    def __init__(
        self, staging: StagingArea, *, kind: str = "model", max_bytes: int, pickle_memory: int = 4 * GIB
    ) -> None:
        self._staging = staging
        self._rule = RULES[kind]
        self._max_bytes = max_bytes
        self._pickle_memory = pickle_memory

    def new_folder(self) -> Path:
        """Returns a path in the staging area, not made yet, where files may be received."""
        return self._staging.root / ARRIVING.format(unique_name())

    def clear_leftovers(self, older_than: float = 86400.0) -> int:
        """Removes what uploads that ended with the service have left; returns how many. `older_than` in seconds."""
        before = time.time() - older_than
        found = [path for end in (ARRIVING, _UNPACKED) for path in self._staging.root.glob(end.format("*"))]
        old = [path for path in found if path.is_dir() and path.stat().st_mtime < before]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return len(old)

    def accept(self, folder: Path, name: str | None = None, *, progress: Progress | None = None) -> Staged:
        """Stages the files below `folder`, which has to be on the staging area's filesystem and is gone afterwards.

        One archive alone is unpacked. `name` may be left out where there is one file, which gives it then.
        Raises `InvalidInputError` that names the files which cannot be taken, `PayloadTooLargeError`, and
        `StoreUnavailableError` where the disk is full; nothing is staged then.
        """
        unpacked = self._staging.root / _UNPACKED.format(unique_name())
        try:
            name = local_name(name or name_of(folder))
            found = self._inspected(folder, unpacked, progress)
            root = Path(found["root"])
            check_pickles({path: root / path for path in found["pickles"]}, memory=self._pickle_memory)
            files = {path: f"sha256:{digest}" for path, digest in found["files"].items()}
            record = SourceRecord("upload", name, files=files, finished_at=time.time())
            with full_disk_told():
                return self._staging.publish(name, root, record)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)

    def _inspected(self, folder: Path, unpacked: Path, progress: Progress | None) -> JsonObject:
        request = {
            "folder": str(folder),
            "unpacked": str(unpacked),
            "rule": self._rule.name,
            "max_bytes": self._max_bytes,
            "max_files": self._rule.max_files,
        }

        def heard(message: JsonObject) -> None:
            if progress and "done" in message:
                progress(message["done"], message["total"])

        try:
            return run_confined("src.core.sources.inspection", request, heard, silent_seconds=_SILENT)
        except ConfinedDiedError as exc:
            raise EngineError(f"The process that looked through the upload ended: {exc}") from exc


def name_of(folder: Path) -> str:
    """Returns the name that one received file gives to what it holds; raises `InvalidInputError` for several."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if len(files) != 1:
        raise InvalidInputError(f"Say what to call it: the field 'name' is missing, and there are {len(files)} files")
    return without_ending(files[0].name)
