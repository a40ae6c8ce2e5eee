"""Who may move a branch, one at a time.

lakeFS merges three-way and cannot be told which head a merge is meant for: two uploads that merge at once
would end in a mixture of their trees. So whoever is about to move a branch first takes its turn, here among
the users of one cache folder by a lock file, among machines by a hidden branch that only one can create.
Its head is a commit of the holder's; where the same holder has been seen for a minute, it has died.
"""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.core.errors import ConflictError, NotFoundError, PlatformError
from src.core.stores.lakefs.names import TURN_PREFIX
from src.core.stores.lakefs.patience import patiently
from src.core.stores.lakefs.server import Server
from src.core.stores.locks import locked

_DEAD_AFTER = 60.0  # seconds; a turn takes a few requests
_PAUSE = (0.05, 0.15)  # seconds between two looks

logger = logging.getLogger(__name__)


class Turns:
    """Turns at the branches of one server; `folder` holds the lock files and exists."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder

    @contextmanager
    def taken(self, repo: str, branch: str, commit_id: str) -> Iterator[None]:
        """Holds the turn at a branch; `commit_id` is one that nobody else takes a turn with at the moment."""
        sign = f"{TURN_PREFIX}{branch}"
        with locked(self._folder / f"{repo}.{branch}.lock"):
            self._take(repo, sign, commit_id)
            try:
                yield
            finally:
                drop_branch(self._server, repo, sign)

    def _take(self, repo: str, sign: str, commit_id: str) -> None:
        holder, seen_at = "", time.monotonic()
        while not self._created(repo, sign, commit_id):
            now = self._holder(repo, sign)
            if now == commit_id:  # it was created, and only the answer was lost
                return
            if now != holder:
                holder, seen_at = now, time.monotonic()
            elif time.monotonic() - seen_at > _DEAD_AFTER:
                logger.warning("%s of %s was left behind by somebody who died: removed", sign, repo)
                drop_branch(self._server, repo, sign)
                holder = ""
            time.sleep(random.uniform(*_PAUSE))

    def _created(self, repo: str, sign: str, commit_id: str) -> bool:
        try:
            patiently(lambda: self._server.create_branch(repo, sign, commit_id, hidden=True))
        except ConflictError:
            return False
        return True

    def _holder(self, repo: str, sign: str) -> str:
        try:
            return self._server.branch(repo, sign)
        except NotFoundError:
            return ""


def drop_branch(server: Server, repo: str, name: str) -> None:
    """Deletes a branch of this store's own, if it is there; what is left behind otherwise is swept later."""
    try:
        patiently(lambda: server.delete_branch(repo, name))
    except NotFoundError:
        pass
    except PlatformError as exc:
        logger.warning("branch %s of %s is left behind until garbage is collected: %s", name, repo, exc)
