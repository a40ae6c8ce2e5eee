"""One repository on disk: `repo.json`, `commits/<id>.json` and `refs/<branch>`.

A ref holds a commit id, or `-` for a branch without a commit, and a newline. Whatever is read is
checked, and nothing that has gone missing is made anew: an emptied ref is an error, not an empty branch.
"""

import json
import os
import shutil
import time
from pathlib import Path

from src.core.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from src.core.stores.base import Commit, Repo
from src.core.stores.commits import decode, encode
from src.core.stores.disk import sync_folder, unique_name, write_durably
from src.core.stores.disk_errors import writing
from src.core.stores.names import check_branch_name, is_branch_name, is_commit_id, is_sha256

DEFAULT_BRANCH = "main"
_NO_COMMIT = "-"


class RepoFolder:
    """Reads and writes one repository's folder; the caller holds the repository's lock while it writes."""

    def __init__(self, folder: Path, temp: Path) -> None:
        self._name = folder.name
        self._folder = folder
        self._refs = folder / "refs"
        self._commits = folder / "commits"
        self._temp = temp

    def exists(self) -> bool:
        """Whether the repository was created."""
        return self._folder.is_dir()

    def create(self) -> Repo:
        """Builds the empty repository aside and moves it into place whole."""
        repo = Repo(self._name, DEFAULT_BRANCH, time.time())
        draft = RepoFolder(self._temp / unique_name() / self._name, self._temp)
        details = {"name": repo.name, "default_branch": repo.default_branch, "created_at": repo.created_at}
        try:
            for folder in (draft._refs, draft._commits):
                folder.mkdir(parents=True)
            draft.point(DEFAULT_BRANCH, "")
            draft._write(draft._folder / "repo.json", _json(details))
            os.rename(draft._folder, self._folder)
        finally:
            shutil.rmtree(draft._folder.parent, ignore_errors=True)
        sync_folder(self._folder.parent)
        return repo

    def load(self) -> Repo:
        """Returns the repository; raises `NotFoundError` where there is none."""
        if not self.exists():
            raise NotFoundError(f"there is no repository {self._name!r}", details={"repo": self._name})
        try:
            return Repo(**json.loads((self._folder / "repo.json").read_bytes()))
        except (FileNotFoundError, TypeError, ValueError) as exc:
            raise self._damaged("repo.json") from exc

    def branches(self) -> dict[str, str]:
        """Returns branch name → commit id ("" for a branch without a commit)."""
        names = {path.name for path in self._refs.glob("*") if is_branch_name(path.name)} | {DEFAULT_BRANCH}
        heads = {name: self._head(name) for name in sorted(names)}
        return {name: head for name, head in heads.items() if head is not None}

    def point(self, branch: str, commit_id: str) -> None:
        """Sets a branch, in one step."""
        self._write(self._refs / branch, f"{commit_id or _NO_COMMIT}\n".encode())

    def drop(self, branch: str) -> None:
        """Removes a branch."""
        (self._refs / branch).unlink()
        sync_folder(self._refs)

    def add(self, commit: Commit, branch: str) -> None:
        """Stores a commit, then sets the branch to it."""
        self._write(self._commits / f"{commit.id}.json", encode(commit))
        self.point(branch, commit.id)

    def stored(self) -> dict[str, Path]:
        """Returns commit id → file for every commit that is stored, whether anything reaches it or not."""
        return {path.stem: path for path in self._commits.glob("*.json") if is_sha256(path.stem)}

    def sync_commits(self) -> None:
        """Makes the removal of commits survive a power cut."""
        sync_folder(self._commits)

    def commit(self, commit_id: str) -> Commit:
        """Returns a commit that this repository refers to."""
        try:
            data = (self._commits / f"{commit_id}.json").read_bytes()
        except FileNotFoundError as exc:
            raise self._damaged(f"commits/{commit_id}.json") from exc
        return decode(commit_id, data)

    def resolve(self, ref: str) -> str:
        """Returns the commit id that a branch, an id or the beginning of one names."""
        if is_commit_id(ref):
            return self._complete(ref)
        head = self.require_branch(ref)
        if not head:
            raise NotFoundError(f"the branch {ref!r} of {self._name!r} has no commit yet")
        return head

    def require_branch(self, branch: str) -> str:
        """Returns a branch's commit id ("" without one); raises `NotFoundError` without the branch."""
        check_branch_name(branch)
        head = self._head(branch)
        if head is None:
            raise NotFoundError(f"{self._name!r} has no branch {branch!r} (a commit id needs 7 digits or more)")
        return head

    def refuse_branch(self, branch: str) -> None:
        """Raises `ConflictError` where the branch exists."""
        check_branch_name(branch)
        if self._head(branch) is not None:
            raise ConflictError(f"the repository {self._name!r} already has a branch {branch!r}")

    def _write(self, path: Path, data: bytes) -> None:
        with writing(path.parent, len(data)):
            write_durably(path, data, self._temp / unique_name())

    def _head(self, branch: str) -> str | None:
        try:
            text = (self._refs / branch).read_text(encoding="utf-8")
        except FileNotFoundError as exc:
            if branch == DEFAULT_BRANCH:  # it cannot be deleted, so it has been lost
                raise self._damaged(f"refs/{branch}") from exc
            return None
        except UnicodeDecodeError:
            text = ""
        head = text.removesuffix("\n")
        if head != _NO_COMMIT and not is_sha256(head):
            raise self._damaged(f"refs/{branch}")
        return head.removeprefix(_NO_COMMIT)

    def _complete(self, ref: str) -> str:
        matches = [path.stem for path in self._commits.glob(f"{ref}*.json")]
        if not matches:
            raise NotFoundError(f"{self._name!r} has no commit {ref!r}")
        if len(matches) > 1:
            raise InvalidInputError(f"several commits of {self._name!r} begin with {ref!r}: give more digits")
        return matches[0]

    def _damaged(self, file: str) -> IntegrityError:
        return IntegrityError(
            f"{file} of the repository {self._name!r} is missing or damaged: restore it from a backup",
            details={"repo": self._name, "files": [file]},
        )


def _json(values: dict[str, object]) -> bytes:
    return json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
