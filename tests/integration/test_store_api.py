"""The version store over HTTP, the same for both kinds: log, diff, branches, merges, garbage."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lifecycle import STORES, Platform, ok, refused, running_platform
from tests.slow_plugin import ENGINE, TASK, install

BASE = {"a.txt": b"1", "b.txt": b"1"}


@pytest.fixture(scope="module", params=STORES)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service over each kind of store, with an engine whose model is a text."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = {**install(folder / "plugin"), "AIML_WORKERS__PRELOAD": "never"}
    with running_platform(folder, store=request.param, **settings) as running:
        yield running


@pytest.fixture
def repo(platform: Platform, request: pytest.FixtureRequest) -> str:
    """A repository of the test's own, with two files on `main`."""
    name = request.node.name.partition("[")[0].replace("_", "-")[5:60].strip("-")
    platform.commit(name, "base", BASE)
    return str(name)


def path(repo: str, rest: str) -> str:
    return f"/models/lakefs_repos/{repo}/{rest}"


def branches(platform: Platform, repo: str) -> dict[str, str]:
    return {entry["name"]: entry["commit_id"] for entry in platform.get(path(repo, "branches"))}


def merge(platform: Platform, repo: str, source: str, into: str = "main") -> Any:
    return platform.service.post(path(repo, "merge"), {"source": source, "into": into, "message": "together"})


def test_what_was_committed_is_listed(platform: Platform, repo: str) -> None:
    body = {"repo_name": repo, "local_model_name": "changed", "message": "a change"}
    platform.stage("changed", {"a.txt": b"2", "c.txt": b"new"})
    commit = platform.post("/models/upload_to_lakefs", body)

    assert repo in [entry["name"] for entry in platform.get("/models/lakefs_repos")]
    log = platform.get(path(repo, "commits"))
    assert [entry["message"] for entry in log if entry["file_count"]] == ["a change", "Import base"]
    assert log[0]["commit_id"] == commit["commit_id"]
    assert platform.get(path(repo, "commits"), limit=1) == log[:1]
    short = platform.get(path(repo, f"commits/{commit['commit_id'][:12]}"))
    assert short["files"] == commit["files"]
    assert [file["path"] for file in short["files"]] == ["a.txt", "c.txt"]
    assert (short["digest"], short["metadata"]["source_name"]) == (commit["digest"], "changed")
    diff = platform.get(path(repo, "diff"), left=log[1]["commit_id"], right="main")
    assert (diff["added"], diff["removed"], diff["changed"]) == (["c.txt"], ["b.txt"], ["a.txt"])


def test_an_unchanged_folder_makes_no_commit(platform: Platform, repo: str) -> None:
    before = platform.get(path(repo, "commits"))
    assert platform.commit(repo, "base", BASE) == before[0]["commit_id"]
    assert platform.get(path(repo, "commits")) == before


def test_branches_are_made_moved_and_deleted(platform: Platform, repo: str) -> None:
    main = branches(platform, repo)["main"]
    assert platform.post(path(repo, "branches"), {"name": "trial"}) == {"name": "trial", "commit_id": main}
    trial = platform.commit(repo, "trial", {"a.txt": b"trial"}, branch="trial")
    fresh = platform.commit(repo, "fresh", {"a.txt": b"fresh"}, branch="fresh")
    assert branches(platform, repo) == {"main": main, "trial": trial, "fresh": fresh}
    assert platform.get(path(repo, "commits"), ref="trial", limit=1)[0]["commit_id"] == trial

    assert "trial" in ok(platform.delete(path(repo, "branches/trial")))["message"]
    assert branches(platform, repo) == {"main": main, "fresh": fresh}
    refused(platform.delete(path(repo, "branches/trial")), 404, "trial")
    assert refused(platform.delete(path(repo, "branches/main")), 409, "default branch")["retryable"] is False


@pytest.mark.parametrize(
    ("method", "rest", "body", "status", "words"),
    [
        ("POST", "branches", {"name": "main"}, 409, ["already has a branch 'main'"]),
        ("POST", "branches", {"name": "new", "source": "nowhere"}, 404, ["nowhere"]),
        ("POST", "branches", {"name": "not a name"}, 400, ["cannot name a branch", "for example"]),
        ("POST", "branches", {"name": "0123456789abcdef"}, 400, ["name commits"]),
        ("POST", "branches", {}, 422, ["name"]),
        ("POST", "merge", {"source": "nowhere"}, 404, ["nowhere"]),
        ("POST", "merge", {"source": "main", "into": "nowhere"}, 404, ["nowhere"]),
        ("GET", "commits?ref=nowhere", None, 404, ["nowhere"]),
        ("GET", "commits?limit=0", None, 422, ["limit"]),
        ("GET", f"commits/{'0' * 64}", None, 404, ["0" * 64]),
        ("GET", "diff?left=nowhere&right=main", None, 404, ["nowhere"]),
        ("GET", "diff?right=main", None, 422, ["left"]),
    ],
)
def test_what_cannot_be_is_told(
    platform: Platform, method: str, rest: str, body: Any, status: int, words: list[str]
) -> None:
    platform.commit("asked", "base", BASE)
    target = path("asked", rest)
    refused(platform.service.get(target) if method == "GET" else platform.service.post(target, body), status, *words)
    assert set(branches(platform, "asked")) == {"main"}


@pytest.mark.parametrize("rest", ["commits", "branches", "diff?left=main", "commits/main"])
def test_a_repository_that_is_not_there_is_told(platform: Platform, rest: str) -> None:
    refused(platform.service.get(path("nowhere", rest)), 404, "nowhere")


def test_a_merge_brings_both_changes_together_once(platform: Platform, repo: str) -> None:
    platform.post(path(repo, "branches"), {"name": "side"})
    side = platform.commit(repo, "side", {**BASE, "side.txt": b"side"}, branch="side")
    main = platform.commit(repo, "main", {**BASE, "main.txt": b"main"})

    merged = ok(merge(platform, repo, "side"))

    assert (merged["branch"], merged["message"], set(merged["parents"])) == ("main", "together", {main, side})
    found = platform.get(path(repo, "commits/main"))
    assert [file["path"] for file in found["files"]] == ["a.txt", "b.txt", "main.txt", "side.txt"]
    refused(merge(platform, repo, "side"), 400, "nothing to merge")


def test_a_conflict_names_the_files_and_changes_nothing(platform: Platform, repo: str) -> None:
    platform.post(path(repo, "branches"), {"name": "side"})
    platform.commit(repo, "side", {"a.txt": b"side", "b.txt": b"side", "new.txt": b"side"}, branch="side")
    main = platform.commit(repo, "main", {"a.txt": b"main", "b.txt": b"1", "new.txt": b"main"})

    failure = refused(merge(platform, repo, "side"), 409, "both sides changed", "a.txt")

    assert failure["details"]["paths"] == ["a.txt", "new.txt"]
    assert branches(platform, repo)["main"] == main


def test_a_registered_commit_of_a_deleted_branch_outlives_the_garbage_and_serves(platform: Platform, repo: str) -> None:
    model = {"answer": b"still here", "seconds": b"0"}
    platform.post(path(repo, "branches"), {"name": "doomed"})
    registered = platform.commit(repo, "registered", model, branch="doomed")
    forgotten = platform.commit(repo, "forgotten", {"answer": b"gone", "seconds": b"0"}, branch="doomed")
    earlier = platform.commit(repo, "registered", model, branch="doomed2")
    body = {
        "registered_name": "kept",
        "task": TASK,
        "lakefs_repo": repo,
        "commit_id": registered,
        "stage": "production",
    }
    assert platform.post("/models/register_from_lakefs", body)["result"]["engine"] == ENGINE
    for branch in ("doomed", "doomed2"):
        ok(platform.delete(path(repo, f"branches/{branch}")))

    freed = platform.post("/models/collect_garbage?older_than=0")

    if platform.lakefs is None:  # what lakeFS keeps is for its own collection
        assert freed["removed"] > 0
        refused(platform.service.get(path(repo, f"commits/{forgotten}")), 404, forgotten)
        refused(platform.service.get(path(repo, f"commits/{earlier}")), 404, earlier)
    assert [file["path"] for file in platform.get(path(repo, f"commits/{registered}"))["files"]] == [
        "answer",
        "seconds",
    ]
    answer = platform.post(
        "/inference/infer", {"task": TASK, "engine": ENGINE, "model_name": "kept", "data": {}, "options": {}}
    )
    assert answer["result"]["response"] == "still here"
    assert answer["provenance"]["commit"] == registered
    refused(platform.service.post("/models/collect_garbage?older_than=-1"), 422, "older_than")
