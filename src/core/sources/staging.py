"""The staging area: folders of models (or datasets) on their way from a source to the version store.

    tmp/models/<name>/                  a whole one, with its record `.aiml-source.json`
    tmp/models/.<name>.partial/         one that is still arriving; kept when it is broken off, so that it can go on

A folder appears under its name in one rename, so that half of one never looks like a model.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from src.core.errors import InvalidInputError, NotFoundError
from src.core.stores.disk import swap_in, sync_folder, unique_name
from src.core.stores.source_tree import SOURCE_RECORD

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """Where a staged folder comes from.

    `source` is `huggingface`, `upload` …; `name` is what its source calls it; `revision` the exact one there
    (a commit hash); `files` maps each path to its digest there (`sha256:<hex>` or `git:<hex>`);
    `finished_at` is in seconds since 1970; `left_out` names what the source has and was not fetched.
    """

    source: str
    name: str
    revision: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    finished_at: float = 0.0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Staged:
    """One whole folder in the staging area; `record` is None for one that somebody put there by hand."""

    name: str
    path: Path
    record: SourceRecord | None


def local_name(name: str) -> str:
    """Returns the folder name of a model: `/` becomes `_`; raises `InvalidInputError` for one that cannot be."""
    folded = name.strip().replace("/", "_")
    if not _NAME.fullmatch(folded):
        raise InvalidInputError(
            f"'{name}' cannot be a folder name: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    return folded


class StagingArea:
    """The staged folders below `root`; safe to use from any thread and process."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> list[Staged]:
        """Returns what is staged whole, by name."""
        return sorted(self._found(), key=lambda staged: staged.name)

    def get(self, name: str) -> Staged:
        """Returns one staged folder; raises `NotFoundError` that names those there are."""
        path = self.root / local_name(name)
        if not path.is_dir():
            names = [staged.name for staged in self.list()]
            raise NotFoundError(
                f"There is no '{local_name(name)}' in {self.root.name}; staged are: {', '.join(names) or 'none'}. "
                "Download or upload it first",
                details={"staged": names},
            )
        return Staged(path.name, path, _record(path))

    def partial(self, name: str) -> Path:
        """Returns the folder, made where it is missing, in which a model may arrive piece by piece."""
        path = self.root / f".{local_name(name)}.partial"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, name: str, arrived: Path, record: SourceRecord) -> Staged:
        """Puts a complete folder, whose files are on disk already, in its place, replacing an older one."""
        text = json.dumps(asdict(record), ensure_ascii=False, indent=1).encode()
        with open(arrived / SOURCE_RECORD, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(arrived)
        target = self.root / local_name(name)
        swap_in(arrived, target)
        sync_folder(self.root)
        shutil.rmtree(arrived, ignore_errors=True)  # what was at the target before
        return Staged(target.name, target, record)

    def remove(self, name: str) -> None:
        """Removes a staged folder; raises `NotFoundError` without it."""
        staged = self.get(name)
        doomed = self.root / f".{staged.name}.{unique_name()}.removed"
        os.rename(staged.path, doomed)
        shutil.rmtree(doomed)

    def _found(self) -> Iterator[Staged]:
        if self.root.is_dir():
            for path in self.root.iterdir():
                if path.is_dir() and _NAME.fullmatch(path.name):
                    yield Staged(path.name, path, _record(path))


def _record(path: Path) -> SourceRecord | None:
    try:
        return SourceRecord(**json.loads((path / SOURCE_RECORD).read_bytes()))
    except (OSError, TypeError, ValueError):
        return None
