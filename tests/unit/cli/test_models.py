"""What each command asks of the service, and what it prints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.cli.stub_service import Stub, events, failure, job

Run = Callable[..., Result]
COMMIT = "3a07b0c9e8b741eb2bb28016dae9c438ed4fb4a26e2c1f0ee92ddbc033c963ee"
SAID = {"message": "done", "result": {}}

TRANSITION = {
    "model_name": "m",
    "version": "2",
    "stage": "production",
    "archive_existing_versions": False,
    "allow_downtime": False,
}
REGISTRATION = {
    "registered_name": "m",
    "task": "text-generation",
    "version_description": "",
    "set_priority_to_one": False,
}


@pytest.mark.parametrize(
    ("line", "method", "path", "sent"),
    [
        ("models stage m 2 production", "POST", "/models/transition_stage", TRANSITION),
        (
            "models stage m 2 archived --archive-existing --allow-downtime",
            "POST",
            "/models/transition_stage",
            {**TRANSITION, "stage": "archived", "archive_existing_versions": True, "allow_downtime": True},
        ),
        (
            "models register m --task text-generation --repo r --commit abc --engine transformers --stage staging",
            "POST",
            "/models/register_from_lakefs",
            {**REGISTRATION, "lakefs_repo": "r", "commit_id": "abc", "engine": "transformers", "stage": "staging"},
        ),
        (
            "models register m --task text-generation --ollama qwen3:1.7b --params 1.7 --priority --description new",
            "POST",
            "/models/register_ollama",
            {
                **REGISTRATION,
                "local_model_name": "qwen3:1.7b",
                "model_params": 1.7,
                "set_priority_to_one": True,
                "version_description": "new",
            },
        ),
        ("models delete org/m:1 2 --force", "DELETE", "/models/registered_in_mlflow/org/m:1/2", {"force": "true"}),
        ("models discard a_b", "DELETE", "/models/local/a_b", {}),
        ("datasets discard a_b", "DELETE", "/datasets/local/a_b", {}),
    ],
)
def test_a_change_is_asked_for_as_the_service_takes_it(
    aiml: Run, stub: Stub, line: str, method: str, path: str, sent: dict[str, Any]
) -> None:
    stub.on(method, path, SAID)
    done = aiml(*line.split())
    assert (done.exit_code, done.stdout) == (0, "done\n"), done.output
    assert (stub.asked[0].json or stub.asked[0].query) == sent


@pytest.mark.parametrize(
    ("line", "path", "query", "answer", "printed"),
    [
        (
            "models list --all",
            "/models/registered_in_mlflow",
            {"show_all": "true"},
            [
                {
                    "name": "m",
                    "task": "asr",
                    "engine": "transformers",
                    "serving": {"production": "9", "staging": "10"},
                    "versions": [{"version": "9"}, {"version": "10"}],
                }
            ],
            "m production: 9, staging: 10 10 asr transformers",
        ),
        (
            "models show qwen3:1.7b",
            "/models/registered_in_mlflow/qwen3:1.7b",
            {"all_version": "true"},
            {
                "versions": [
                    {
                        "version": "1",
                        "stage": "production",
                        "aliases": ["production", "best"],
                        "task": "text-generation",
                        "engine": "ollama",
                        "source": "ollama://library/qwen3/1.7b",
                        "created_at": None,
                        "description": "[red]",
                    }
                ]
            },
            "1 production production, best text-generation ollama ollama://library/qwen3/1.7b [red]",
        ),
        (
            "models log r --ref main --limit 3",
            "/models/lakefs_repos/r/commits",
            {"ref": "main", "limit": "3"},
            [{"commit_id": COMMIT, "created_at": None, "size_bytes": 2_838_594, "message": "first"}],
            "3a07b0c9e8b7 2.8 MB first",
        ),
        ("models repos", "/models/lakefs_repos", {}, [{"name": "r", "created_at": None}], "r"),
        (
            "models local --source ollama",
            "/models/local",
            {"model_source": "ollama"},
            [{"name": "qwen3:1.7b", "size": "1.0 GB", "modified": "2 days ago", "family": "qwen3"}],
            "qwen3:1.7b 1.0 GB 2 days ago qwen3",
        ),
        (
            "models health",
            "/models/health",
            {},
            {"status": "healthy", "mlflow": {"configured": True, "reachable": False, "error": "refused"}},
            "mlflow no refused",
        ),
        (
            "models stats",
            "/models/stats",
            {"show_all": "false"},
            {"size": {"total_bytes": 2000}},
            "size / total bytes 2.0 KB",
        ),
        ("datasets list", "/datasets/checked_out", {}, [{"commit_id": COMMIT, "path": "/d"}], "3a07b0c9e8b7 /d"),
        (
            "jobs list --status failed",
            "/jobs",
            {"status": "failed", "limit": "20"},
            [job("failed", error="no room", bytes_done=1000, bytes_total=2000)],
            "j1 download failed 1.0 KB of 2.0 KB",
        ),
    ],
)
def test_a_list_is_a_table_or_the_services_json(
    aiml: Run, stub: Stub, line: str, path: str, query: dict[str, str], answer: Any, printed: str
) -> None:
    stub.on("GET", path, answer)
    table = aiml(*line.split())
    assert table.exit_code == 0, table.output
    assert stub.asked[0].query == query
    assert printed in [" ".join(row.split())[: len(printed)] for row in table.stdout.splitlines()]
    assert json.loads(aiml(*line.split(), "--json").stdout) == answer


def test_figures_in_bytes_are_printed_as_sizes(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/models/stats", {"size_bytes": {"by_stage": {"production": 2000}}, "by_task": {"asr": 3}})
    printed = [" ".join(line.split()) for line in aiml("models", "stats").stdout.splitlines()]
    assert printed == ["size bytes / by stage / production 2.0 KB", "by task / asr 3"]


def test_nothing_to_list_is_said_on_stderr(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/models/registered_in_mlflow", [])
    done = aiml("models", "list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Nothing is registered" in done.stderr


def test_without_a_commit_the_newest_of_the_branch_is_registered(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/models/lakefs_repos/r/commits", [{"commit_id": COMMIT}])
    stub.on("POST", "/models/register_from_lakefs", SAID)
    assert aiml("models", "register", "m", "--task", "asr", "--repo", "r", "--branch", "next").exit_code == 0
    assert stub.asked[0].query == {"ref": "next", "limit": "1"}
    assert stub.asked[1].json["commit_id"] == COMMIT


@pytest.mark.parametrize("source", [(), ("--repo", "r", "--ollama", "o"), ("--ollama", "o", "--engine", "onnx")])
def test_a_registration_has_one_source(aiml: Run, stub: Stub, source: list[str]) -> None:
    assert aiml("models", "register", "m", "--task", "asr", *source).exit_code == 2
    assert stub.asked == []


@pytest.mark.parametrize("prefix", ["models", "datasets"])
def test_a_download_is_watched_until_it_has_ended(aiml: Run, stub: Stub, prefix: str) -> None:
    arrived = {"name": "google_gemma-2b", "size": "5.0 GB"}
    stub.on("POST", f"/{prefix}/download", job("queued"))
    stub.on("GET", "/jobs/j1/events", lambda _: events(job("running"), job("succeeded", result=arrived)))
    done = aiml(prefix, "download", "google/gemma-2b", "--revision", "main", "--allow", "*.json", "--allow", "*.txt")
    assert (done.exit_code, done.stdout) == (0, "'google_gemma-2b' has arrived (5.0 GB)\n"), done.output
    assert stub.asked[0].json == {
        "model_source": "huggingface",
        "model_name": "google/gemma-2b",
        "revision": "main",
        "allow_patterns": ["*.json", "*.txt"],
    }


def test_several_downloads_are_one_parent_that_tells_of_each(aiml: Run, stub: Stub) -> None:
    children = [
        {"id": "c1", "status": "succeeded", "result": {"name": "a", "size": "1 B"}},
        {"id": "c2", "status": "failed", "error": "there is no b"},
    ]
    stub.on("POST", "/models/batch_download", job("queued", children=["c1", "c2"]))
    ended = job("succeeded", children=["c1", "c2"], result={"jobs": children})
    stub.on("GET", "/jobs/j1/events", lambda _: events(ended))
    done = aiml("models", "download", "a", "b", "--source", "ollama")
    assert [entry["model_name"] for entry in stub.asked[0].json["downloads"]] == ["a", "b"]
    assert done.exit_code == 1
    assert done.stderr == "'a' has arrived (1 B)\nerror: 1 of 2 did not succeed: there is no b\n"


def test_a_job_that_is_not_waited_for_is_named(aiml: Run, stub: Stub) -> None:
    stub.on("POST", "/models/download", job("queued"))
    done = aiml("models", "download", "a", "--no-wait")
    assert "aiml jobs watch j1" in done.stderr
    assert len(stub.asked) == 1
    assert json.loads(aiml("models", "download", "a", "--no-wait", "--json").stdout)["id"] == "j1"


@pytest.mark.parametrize(
    ("path", "option", "name"),
    [
        ("my-model", (), "my-model"),
        ("weights.v2.tar.gz", (), "weights.v2"),
        ("model.ZIP", (), "model"),
        ("llama.gguf", (), "llama"),
        ("llama.gguf", ("--name", "other"), "other"),
    ],
)
def test_an_upload_has_its_own_name_without_the_ending(
    aiml: Run, stub: Stub, tmp_path: Path, path: str, option: tuple[str, ...], name: str
) -> None:
    if "." in path:
        (tmp_path / path).write_bytes(b"x")
    else:
        (tmp_path / path).mkdir()
        (tmp_path / path / "config.json").write_text("{}")
    stub.on("POST", "/models/upload", {"name": name, "size": "2 B"})
    done = aiml("models", "upload", str(tmp_path / path), *option)
    assert (done.exit_code, done.stdout) == (0, f"'{name}' has arrived (2 B)\n"), done.output
    asked = stub.asked[0]
    assert f'name="name"\r\n\r\n{name}\r\n'.encode() in asked.body
    assert asked.headers["content-length"] == str(len(asked.body))


def test_an_upload_goes_on_into_the_version_store(aiml: Run, stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"x")
    stub.on("POST", "/models/upload", {"name": "a", "size": "1 B"})
    stub.on("POST", "/models/upload_to_lakefs", job("queued"))
    stub.on("GET", "/jobs/j1/events", lambda _: events(job("succeeded", result={"commit_id": COMMIT})))
    done = aiml("models", "upload", str(tmp_path / "a.gguf"), "--to-lakefs", "r", "--branch", "next", "-m", "new")
    assert (done.exit_code, done.stdout) == (0, f"{COMMIT}\n"), done.output
    assert stub.asked[1].query == {"wait": "false"}
    assert stub.asked[1].json == {"repo_name": "r", "local_model_name": "a", "branch": "next", "message": "new"}


def test_what_is_not_there_is_not_uploaded(aiml: Run, stub: Stub, tmp_path: Path) -> None:
    done = aiml("models", "upload", str(tmp_path / "nothing"))
    assert done.exit_code == 1
    assert "does not exist" in done.stderr
    assert stub.asked == []


def test_a_refused_upload_is_the_services_sentence(aiml: Run, stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("print()")
    stub.on("POST", "/models/upload", failure(400, "ValueError", "'run.py' is code"))
    done = aiml("models", "upload", str(tmp_path / "run.py"))
    assert (done.exit_code, done.stderr) == (1, "error: 'run.py' is code\n")


def test_a_checkout_prints_where_the_files_are(aiml: Run, stub: Stub) -> None:
    stub.on("POST", "/datasets/checkout", job("queued"))
    stub.on("GET", "/jobs/j1/events", lambda _: events(job("succeeded", result={"path": "/data/x"})))
    assert aiml("datasets", "checkout", "r", "abc").stdout == "/data/x\n"
    assert stub.asked[0].json == {"repo_name": "r", "commit_id": "abc"}
