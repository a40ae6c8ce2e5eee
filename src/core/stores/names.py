"""Which names and paths a version store takes.

They become file names, URL parts and lakeFS repositories, so one narrow rule serves all three.
"""

import re
from collections.abc import Iterable

from src.core.errors import InvalidInputError

_REPO = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_BRANCH = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_COMMIT_ID = re.compile(r"[0-9a-f]{7,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LISTED_AT_MOST = 5


def check_repo_name(name: str) -> None:
    """Refuses what cannot name a repository: 2 to 63 of `a-z 0-9 . _ -`, the first a letter or digit."""
    if not is_repo_name(name):
        raise InvalidInputError(
            f"{name!r} cannot name a repository: take 2 to 63 lower-case letters, digits, '.', '_' or '-', "
            f"the first a letter or digit{_suggestion(name, _REPO)}"
        )


def check_branch_name(name: str) -> None:
    """Refuses what cannot name a branch: like a repository, or 1 character; no look-alike of a commit id."""
    if not is_branch_name(name):
        raise InvalidInputError(
            f"{name!r} cannot name a branch: take 1 to 63 lower-case letters, digits, '.', '_' or '-', "
            f"the first a letter or digit, and not 7 hex digits or more, which name commits"
            f"{_suggestion(name, _BRANCH)}"
        )


def is_repo_name(name: str) -> bool:
    """Whether `name` can be a repository."""
    return bool(_REPO.fullmatch(name))


def is_branch_name(name: str) -> bool:
    """Whether `name` can be a branch."""
    return bool(_BRANCH.fullmatch(name)) and not is_commit_id(name)


def is_commit_id(ref: str) -> bool:
    """Whether a ref is a commit id or the beginning of one (7 to 64 hex digits)."""
    return bool(_COMMIT_ID.fullmatch(ref))


def is_sha256(text: object) -> bool:
    """Whether `text` is a sha256 digest in hex."""
    return isinstance(text, str) and bool(_SHA256.fullmatch(text))


def is_tree_path(path: str) -> bool:
    """Whether a path stays below the folder that it is relative to, in plain POSIX form."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def listed(paths: Iterable[str]) -> str:
    """Returns paths for a message: the first few, and how many more there are."""
    known = sorted(paths)
    rest = len(known) - _LISTED_AT_MOST
    return ", ".join(known[:_LISTED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _suggestion(name: str, rule: re.Pattern[str]) -> str:
    better = re.sub(r"[^a-z0-9._-]+", "_", name.lower()).strip("._-")[:63]
    return f" (for example {better!r})" if rule.fullmatch(better) and not is_commit_id(better) else ""
