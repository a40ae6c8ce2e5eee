"""Hugging Face as a source: models and datasets come whole and checked, or go on arriving the next time."""

import logging
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from src.core.errors import IntegrityError, InvalidInputError, NotFoundError
from src.core.sources.full_disk import full_disk_told
from src.core.sources.hub_client import HubClient
from src.core.sources.hub_crew import aside, together
from src.core.sources.hub_files import HubFile, choose
from src.core.sources.hub_partial import PartialFolder, holding
from src.core.sources.hub_patience import PAUSES, Patience
from src.core.sources.hub_transfer import DamagedError, Tally, Transfer
from src.core.sources.staging import SourceRecord, Staged, StagingArea, local_name
from src.core.stores.base import Progress
from src.core.stores.disk_errors import require_room

logger = logging.getLogger(__name__)

SOURCE = "huggingface"
_THREADS = 4


class HuggingFaceSource:
    """Downloads repositories of one type into a staging area.

    `endpoint` defaults to HF_ENDPOINT, else to the public hub; `token` to what huggingface_hub finds (HF_TOKEN, a
    login). `pauses` are the seconds to wait after each failure in a row before the hub counts as away.
    """

    def __init__(
        self,
        staging: StagingArea,
        *,
        repo_type: Literal["model", "dataset"] = "model",
        endpoint: str | None = None,
        token: str | None = None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._staging = staging
        self._kind = repo_type
        self._endpoint = endpoint
        self._token = token
        self._pauses = pauses

    def download(
        self,
        name: str,
        *,
        revision: str | None = None,
        allow_patterns: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Staged:
        """Stages the files of a repository at a revision (branch, tag or commit), each checked against its digest.

        Without `allow_patterns` everything is fetched, except that of a model which has safetensors the same
        weights in other formats stay out: `.bin .pt .pth .h5 .msgpack .ot .ckpt` in a folder that holds
        safetensors, or below `original/`. Code (`*.py`) is fetched, never run. Patterns are shell wildcards
        (`*` matches `/` too); with them exactly what matches is fetched.

        The revision is resolved to its commit once; the record has that commit, and each file's digest there
        (`sha256:` for large files, `git:` for the others). Files that are there whole and right, from a download
        that was broken off or from the version staged now, are not fetched again, and a half one is gone on with,
        also when the branch has moved meanwhile. What is staged already is left as it is.

        `progress` is called several times a second from this thread, with what was there counted in (the total
        is 0 until the hub has said it). What it raises stops the download and comes out unchanged; what has
        arrived stays for the next time. A second download of the same name, in
        whatever process, waits for the first.

        Raises `InvalidInputError` for a bad name, patterns that match nothing, or unsafe paths in the repository;
        `NotFoundError` for an unknown repository or revision; `ForbiddenError` for a gated one or a wrong token;
        `SourceUnavailableError` where the hub is away; `IntegrityError` naming files that come out wrong three times;
        `StoreUnavailableError` where the disk is full; `ConfigurationError` for an unusable endpoint or token.
        """
        _check_name(name)
        told = progress or _untold
        patience = Patience(self._pauses)
        client = HubClient(self._kind, name, endpoint=self._endpoint, token=self._token)
        commit, offered = aside(
            lambda: _listed(client, revision, patience), stop=patience.stop, tick=lambda: told(0, 0)
        )
        files, left_out = self._chosen(name, offered, allow_patterns)
        total = sum(file.size for file in files)
        with holding(
            lambda: self._staging.partial(name), lambda partial: told(partial.present(files), total)
        ) as partial:
            staged = self._staged(name)
            if staged is None or not _is_current(staged, name, commit, files):
                self._fetch(_Download(client, commit, files, partial, patience, told), staged)
                staged = self._publish(name, commit, files, left_out, partial)
            partial.remove()
        told(total, total)
        return staged

    def _fetch(self, download: "_Download", staged: Staged | None) -> None:
        try:
            download.run(self._staging.root, staged)
        except BaseException:
            download.leave()
            raise

    def _chosen(
        self, name: str, offered: list[HubFile], allow_patterns: Sequence[str] | None
    ) -> tuple[list[HubFile], list[str]]:
        """Returns the files to fetch, and the paths of those that stay out."""
        files, left_out = choose(offered, allow_patterns, spare_duplicates=self._kind == "model")
        if left_out:
            logger.info("%s has its weights as safetensors; %d other weight files stay out", name, len(left_out))
        return files, [file.path for file in left_out]

    def _staged(self, name: str) -> Staged | None:
        try:
            return self._staging.get(name)
        except NotFoundError:
            return None

    def _publish(
        self, name: str, commit: str, files: list[HubFile], left_out: list[str], partial: PartialFolder
    ) -> Staged:
        record = SourceRecord(SOURCE, name, commit, _digests(files), time.time(), left_out)
        with full_disk_told():
            partial.sync()
            return self._staging.publish(name, partial.tree, record)


class _Download:
    """One run over the files of a commit."""

    def __init__(
        self,
        client: HubClient,
        commit: str,
        files: list[HubFile],
        partial: PartialFolder,
        patience: Patience,
        told: Progress,
    ) -> None:
        self._client, self._commit, self._files = client, commit, files
        self._partial = partial
        self._patience = patience
        self._told = told
        self._total = sum(file.size for file in files)

    def run(self, root: Path, staged: Staged | None) -> None:
        """Completes the partial folder's tree; `staged` is what may hold some of it."""
        self._partial.prune(self._files)
        tally = Tally(self._partial.present(self._files))
        require_room(root, self._total - tally.done)
        older = (staged.path, staged.record.files) if staged and staged.record else None
        transfer = Transfer(
            self._client, self._commit, self._partial, patience=self._patience, tally=tally, older=older
        )
        largest_first = sorted(self._files, key=lambda file: -file.size)
        try:
            together(
                transfer.bring,
                largest_first,
                threads=_THREADS,
                stop=self._patience.stop,
                tick=lambda: self._told(min(tally.done, self._total), self._total),
            )
        except DamagedError as exc:
            raise IntegrityError(
                f"{', '.join(transfer.damaged)}: what the hub sends differs from the digest it states, three times "
                "over. Try again later, or another revision; nothing has been staged",
                details={"files": transfer.damaged},
            ) from exc

    def leave(self) -> None:
        """Leaves what somebody can go on with, or nothing."""
        if not self._partial.present(self._files):
            self._partial.remove()


def _listed(client: HubClient, revision: str | None, patience: Patience) -> tuple[str, list[HubFile]]:
    commit = patience.persist(lambda: client.commit_of(revision))
    return commit, client.files(commit, patience)


def _is_current(staged: Staged, name: str, commit: str, files: list[HubFile]) -> bool:
    record = staged.record
    if record is None or (record.source, record.name, record.revision) != (SOURCE, name, commit):
        return False
    return record.files == _digests(files) and all(_is_there(staged.path / file.path, file.size) for file in files)


def _is_there(path: Path, size: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _digests(files: list[HubFile]) -> dict[str, str]:
    return {file.path: file.digest for file in files}


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as exc:
        raise InvalidInputError(
            f"'{name}' cannot be on the hub: give org/name, or name alone, of letters, digits, '-', '_' and '.'"
        ) from exc
    local_name(name)


def _untold(done: int, total: int) -> None:
    """Stands for a progress that nobody asked for."""
