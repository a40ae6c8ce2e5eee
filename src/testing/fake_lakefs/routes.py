"""Which endpoint answers what; operations carry the names that lakeFS's API gives them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from src.testing.fake_lakefs.asks import Ask
from src.testing.fake_lakefs.branches_api import BranchesApi
from src.testing.fake_lakefs.commits_api import CommitsApi
from src.testing.fake_lakefs.reading_api import ReadingApi
from src.testing.fake_lakefs.repositories_api import RepositoriesApi
from src.testing.fake_lakefs.server_api import ServerApi
from src.testing.fake_lakefs.state import State
from src.testing.fake_lakefs.tags_api import TagsApi
from src.testing.fake_lakefs.wire import Answer
from src.testing.fake_lakefs.writing_api import WritingApi

BASE = "/api/v1"
Endpoint = Callable[[Ask], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """An operation: its name, its method and path, and what does it; `locks` says that it takes the lock itself."""

    operation: str
    method: str
    pattern: re.Pattern[str]
    endpoint: Endpoint
    locks: bool = False
    public: bool = False

    def names(self, method: str, path: str) -> dict[str, str] | None:
        """Returns what a path names, None where it is another operation's."""
        found = self.pattern.fullmatch(path) if method == self.method else None
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


def routes(state: State) -> list[Route]:
    """Builds the table."""
    return [*_server(), *_repositories(state), *_commits(state), *_objects(state)]


def _server() -> list[Route]:
    api = ServerApi()
    return [
        _route("health_check GET /healthcheck", api.health, public=True),
        _route("get_config GET /config", api.config),
        _route("get_lake_fs_version GET /config/version", api.version),
        _route("get_current_user GET /user", api.user),
    ]


def _repositories(state: State) -> list[Route]:
    repositories, branches, tags = RepositoriesApi(state), BranchesApi(state), TagsApi(state)
    one = "/repositories/{repository}"
    return [
        _route("list_repositories GET /repositories", repositories.list_repositories),
        _route("create_repository POST /repositories", repositories.create),
        _route(f"get_repository GET {one}", repositories.get),
        _route(f"get_repository_metadata GET {one}/metadata", repositories.metadata),
        _route(f"delete_repository DELETE {one}", repositories.delete),
        _route(f"list_branches GET {one}/branches", branches.list_branches),
        _route(f"create_branch POST {one}/branches", branches.create),
        _route(f"get_branch GET {one}/branches/{{branch}}", branches.get),
        _route(f"delete_branch DELETE {one}/branches/{{branch}}", branches.delete),
        _route(f"reset_branch PUT {one}/branches/{{branch}}", branches.reset),
        _route(f"diff_branch GET {one}/branches/{{branch}}/diff", branches.uncommitted),
        _route(f"list_tags GET {one}/tags", tags.list_tags),
        _route(f"create_tag POST {one}/tags", tags.create),
        _route(f"get_tag GET {one}/tags/{{tag}}", tags.get),
        _route(f"delete_tag DELETE {one}/tags/{{tag}}", tags.delete),
    ]


def _commits(state: State) -> list[Route]:
    api = CommitsApi(state)
    one = "/repositories/{repository}"
    return [
        _route(f"commit POST {one}/branches/{{branch}}/commits", api.commit),
        _route(f"get_commit GET {one}/commits/{{commit}}", api.get),
        _route(f"log_commits GET {one}/refs/{{ref}}/commits", api.log),
        _route(f"diff_refs GET {one}/refs/{{left}}/diff/{{right}}", api.diff),
        _route(f"find_merge_base GET {one}/refs/{{ref}}/merge/{{branch}}", api.merge_base),
        _route(f"merge_into_branch POST {one}/refs/{{ref}}/merge/{{branch}}", api.merge),
    ]


def _objects(state: State) -> list[Route]:
    reading, writing = ReadingApi(state), WritingApi(state)
    ref, branch = "/repositories/{repository}/refs/{ref}", "/repositories/{repository}/branches/{branch}"
    metadata = f"{branch}/objects/stat/user_metadata"
    return [
        _route(f"get_object GET {ref}/objects", reading.get),
        _route(f"head_object HEAD {ref}/objects", reading.head),
        _route(f"stat_object GET {ref}/objects/stat", reading.stat),
        _route(f"list_objects GET {ref}/objects/ls", reading.ls),
        _route(f"upload_object POST {branch}/objects", writing.upload, locks=True),
        _route(f"delete_object DELETE {branch}/objects", writing.delete, locks=True),
        _route(f"delete_objects POST {branch}/objects/delete", writing.delete_many, locks=True),
        _route(f"copy_object POST {branch}/objects/copy", writing.copy, locks=True),
        _route(f"update_object_user_metadata PUT {metadata}", writing.set_metadata, locks=True),
    ]


def _route(described: str, endpoint: Endpoint, *, locks: bool = False, public: bool = False) -> Route:
    operation, method, path = described.split(" ")
    pattern = re.compile(BASE + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
    return Route(operation, method, pattern, endpoint, locks, public)
