"""A version whose files are in lakeFS: fetched once, verified, and served from then on without it."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from src.testing.fake_lakefs import FakeLakefs
from tests.integration.conftest import manager_of
from tests.service import running_service

Figure = Callable[[str], None]

REQUESTS = 1000


def fetched(server: FakeLakefs) -> Counter[str]:
    """Returns how often each object was read whole or in part."""
    return Counter(request.query["path"][0] for request in server.requests if request.operation == "get_object")


@pytest.mark.slow
def test_a_thousand_requests_fetch_nothing_twice(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    with FakeLakefs() as server:
        settings = {
            "LAKEFS_ENDPOINT": server.url,
            "LAKEFS_ACCESS_KEY_ID": server.access_key_id,
            "LAKEFS_SECRET_ACCESS_KEY": server.secret_access_key,
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        writer = manager_of(tmp_path / "elsewhere")
        commit = writer.store.upload("tiny-models", tiny_model)
        writer.close()
        body = {
            "registered_name": "tiny",
            "task": "text-generation",
            "lakefs_repo": "tiny-models",
            "commit_id": commit.id[:12],
            "stage": "production",
        }
        with running_service(tmp_path / "data", **settings) as service:
            registered = service.post("/models/register_from_lakefs", body)
            assert registered.status_code == 200, registered.text
            assert not (tmp_path / "data" / "models").exists(), "registering needs the small files only"
            server.requests.clear()

            first = service.infer("tiny", max_new_tokens=1).json()
            with ThreadPoolExecutor(8) as pool:
                statuses = list(
                    pool.map(lambda _: service.infer("tiny", max_new_tokens=1).status_code, range(REQUESTS - 1))
                )
            assert Counter(statuses) == {200: REQUESTS - 1}
            assert fetched(server) == {entry.path: 1 for entry in commit.files if entry.size}
            found = {path.name for path in (tmp_path / "data" / "models" / commit.id).iterdir()}
            assert found == {entry.path for entry in commit.files}
        provenance = first["provenance"]
        assert provenance["source"] == f"lakefs://tiny-models/{commit.id}/"
        assert (provenance["commit"], provenance["digest"]) == (commit.id, commit.digest)

        server.stop()  # what is checked out is served also while lakeFS is away
        with running_service(tmp_path / "data", **settings) as service:
            assert service.infer("tiny", max_new_tokens=1).status_code == 200
            health = service.get("/models/health").json()
            assert (health["status"], health["lakefs"]["reachable"]) == ("degraded", False)
    figure(f"{REQUESTS} requests to a model in lakeFS: each of its {len(commit.files)} files fetched once")
