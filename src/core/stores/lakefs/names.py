"""Which names lakeFS takes, and which branches are this store's own."""

import re

from src.core.errors import InvalidInputError
from src.core.stores.names import check_branch_name

UPLOAD_PREFIX = "aiml-upload-"
"""Branches of uploads under way: `aiml-upload-<what is uploaded>-<seconds since 1970>`."""

LANDING_SUFFIX = "-landing"
"""Ends the name of a second branch that an upload needs where its target does not exist yet, and main has moved."""

TURN_PREFIX = "aiml-turn-"
"""Branches that exist while somebody moves the branch whose name follows."""

# As the server's own schema and the client's models have them.
_REPO = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")
_REF = re.compile(r"\w[-\w]*", re.ASCII)


def check_repo_name(name: str) -> None:
    """Refuses what cannot name a repository on lakeFS: 3 to 63 of `a-z 0-9 -`, the first a letter or digit."""
    if not _REPO.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63]
        suggestion = f" (for example {better!r})" if _REPO.fullmatch(better) else ""
        raise InvalidInputError(
            f"{name!r} cannot name a repository on lakeFS: take 3 to 63 lower-case letters, digits or '-', "
            f"the first a letter or digit{suggestion}"
        )


def check_new_branch(name: str) -> None:
    """Refuses what cannot name a branch of ours: what no store takes, a '.', and this store's own branches."""
    check_branch_name(name)
    if not _REF.fullmatch(name) or is_ours(name):
        raise InvalidInputError(
            f"{name!r} cannot name a branch on lakeFS: take lower-case letters, digits, '_' or '-', "
            f"and begin with neither {UPLOAD_PREFIX!r} nor {TURN_PREFIX!r}"
        )


def check_ref(ref: str) -> None:
    """Refuses what names nothing on lakeFS; branches and tags that others made may be named as they like it."""
    if not _REF.fullmatch(ref):
        raise InvalidInputError(f"{ref!r} cannot name a branch, a tag or a commit on lakeFS")


def is_ours(branch: str) -> bool:
    """Whether a branch is part of this store's own work."""
    return branch.startswith((UPLOAD_PREFIX, TURN_PREFIX))
