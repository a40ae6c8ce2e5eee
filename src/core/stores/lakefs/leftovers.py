"""Branches that uploads and turns have left behind, because their process died or the server was away."""

import re
import time

from src.core.errors import NotFoundError
from src.core.stores.lakefs.names import LANDING_SUFFIX, TURN_PREFIX, UPLOAD_PREFIX
from src.core.stores.lakefs.server import Server

_UPLOAD = re.compile(rf"{UPLOAD_PREFIX}[0-9a-f]{{16}}-([0-9]{{1,12}})({LANDING_SUFFIX})?")


def sweep(server: Server, older_than: float) -> int:
    """Deletes leftover branches that began more than `older_than` seconds ago; returns how many."""
    before = time.time() - older_than
    swept = 0
    for repo in list(server.repos()):
        branches = {
            **server.branches(repo.name, prefix=UPLOAD_PREFIX, hidden=True),
            **server.branches(repo.name, prefix=TURN_PREFIX, hidden=True),
        }
        for branch, head in branches.items():
            if _began(server, repo.name, branch, head) <= before:
                swept += _deleted(server, repo.name, branch)
    return swept


def _began(server: Server, repo: str, branch: str, head: str) -> float:
    """Returns when a branch began: an upload's says so; a turn's stands at a commit made for it."""
    if named := _UPLOAD.fullmatch(branch):
        return float(named[1])
    return float(server.find(repo, head).creation_date)


def _deleted(server: Server, repo: str, branch: str) -> bool:
    try:
        server.delete_branch(repo, branch)
    except NotFoundError:  # its upload has ended just now
        return False
    return True
