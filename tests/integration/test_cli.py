"""`aiml` as a program of its own, against the real service: a hub and an Ollama on this machine, nothing else faked."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.testing.fake_hub import FakeHub, FakeRepo
from src.testing.fake_ollama import FakeModel, FakeOllama
from tests.service import CLIENT, ROOT, Service, environment, free_port, running_service, stop, wait_until

Done = subprocess.CompletedProcess[str]
Figure = Callable[[str], None]

DEMO = ROOT / "samples" / "demo-text"
QUESTION = "What is 27 plus 45?"
NAMED_BY_OLLAMA = "qwen3:1.7b-ollama-1"
KEY = "key-of-the-tests"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    """A hub with the demo model under names of its own."""
    with FakeHub(FakeRepo.from_folder(f"org/{name}", DEMO) for name in ("adder", "slow", "unwanted")) as server:
        yield server


@pytest.fixture(scope="module")
def own_ollama() -> Iterator[FakeOllama]:
    """An Ollama with `tiny`, which can pull `pulled`."""
    with FakeOllama(pullable=[FakeModel("pulled")]) as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub, own_ollama: FakeOllama) -> Iterator[Service]:
    """A service of this file's own, behind a key."""
    data_dir = tmp_path_factory.mktemp("cli") / "data"
    servers = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "OLLAMA_HOST": own_ollama.url}
    with running_service(data_dir, samples="on", AIML_API_KEYS=KEY, **servers) as running:
        wait_until((data_dir / "samples-registered").exists, 300, "the samples to be registered")
        yield running


def start(service: Service, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    variables = environment(service.data_dir, AIML_URL=service.url, AIML_API_KEY=KEY)
    command = [sys.executable, "-m", "src.cli", *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, env=variables, text=True, **pipes, **options)


@pytest.fixture
def aiml(service: Service) -> Callable[..., Done]:
    """Runs a command line to its end."""

    def run(*arguments: str, input: str = "", code: int = 0) -> Done:
        process = start(service, *arguments)
        out, err = process.communicate(input, timeout=120)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


Run = Callable[..., Done]


def test_a_prompt_is_answered_by_the_task_and_engine_of_its_model(aiml: Run) -> None:
    assert aiml("infer", "--model", "demo-text", QUESTION).stdout == "72\n"


def test_everything_said_reaches_the_service(aiml: Run) -> None:
    words = ["--task", "text-generation", "--engine", "transformers", "--model", "demo-text@1", "-", "--json"]
    answer = json.loads(aiml("infer", *words, "--option", "max_new_tokens=2", input=QUESTION).stdout)
    assert answer["result"]["metadata"]["tokens"] <= 2
    assert answer["provenance"]["version"] == "1"


def test_a_misspelt_option_is_told(aiml: Run) -> None:
    assert "temperature" in aiml("infer", "-m", "demo-text", QUESTION, "-o", "temprature=1", code=1).stderr


def test_without_the_key_nothing_is_told(aiml: Run) -> None:
    assert "AIML_API_KEY" in aiml("models", "list", "--api-key", "wrong", code=1).stderr


def test_from_the_hub_to_an_answer(aiml: Run) -> None:
    """Workflow B, without an engine: the service finds the one that can."""
    assert aiml("models", "download", "org/adder").stdout.startswith("'org_adder' has arrived (2.8 MB)")
    assert "org_adder" in aiml("models", "local").stdout
    commit = aiml("models", "commit", "org_adder", "--repo", "adders", "-m", "from the hub").stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", commit)
    log = aiml("models", "log", "adders").stdout
    assert commit[:12] in log
    assert "from the hub" in log
    registered = aiml("models", "register", "adder", "--task", "text-generation", "--repo", "adders")
    assert "version 1" in registered.stdout
    staged = aiml("models", "stage", "adder", "1", "production", "--archive-existing")
    assert "production: version 1" in staged.stdout
    assert "production: 1" in aiml("models", "list").stdout
    answer = json.loads(aiml("infer", "-m", "adder", QUESTION, "--json").stdout)
    assert answer["result"]["generated_text"] == "72"
    assert answer["provenance"]["commit"] == commit


def test_from_ollama_to_an_answer(aiml: Run) -> None:
    """Workflow A, with a name that holds a colon."""
    assert "tiny" in aiml("models", "local", "--source", "ollama").stdout
    words = ["--ollama", "tiny", "--task", "text-generation-ollama", "--params", "1.7", "--stage", "staging"]
    assert "version 1" in aiml("models", "register", NAMED_BY_OLLAMA, *words).stdout
    aiml("models", "stage", NAMED_BY_OLLAMA, "1", "production")
    assert "ollama" in aiml("models", "show", NAMED_BY_OLLAMA).stdout
    assert aiml("infer", "-m", NAMED_BY_OLLAMA, "Hello", "-o", "max_new_tokens=8").stdout.strip()


def test_what_ollama_alone_knows_is_asked_by_its_engine(aiml: Run) -> None:
    assert "needs --engine" in aiml("infer", "-m", "tiny", "Hello", code=1).stderr
    assert aiml("infer", "-m", "tiny", "--engine", "ollama", "Hello", "-o", "max_new_tokens=8").stdout.strip()


def test_several_downloads_tell_how_each_went(aiml: Run) -> None:
    done = aiml("models", "download", "--source", "ollama", "pulled", "not-in-any-registry", code=1)
    assert "'pulled" in done.stderr
    assert "1 of 2 did not succeed" in done.stderr


def test_a_folder_is_uploaded_committed_and_not_sent_again(aiml: Run, tmp_path: Path) -> None:
    folder = tmp_path / "adder two"
    shutil.copytree(DEMO, folder)
    (folder / "docs").mkdir()
    (folder / "docs" / "說明 1.md").write_text("加法", encoding="utf-8")
    words = ["models", "upload", str(folder), "--name", "adder_two", "--to-lakefs", "uploads", "--json"]
    first = json.loads(aiml(*words).stdout)
    assert {"docs/說明 1.md", "config.json"} <= {file["path"] for file in first["files"]}
    assert json.loads(aiml(*words).stdout)["digest"] == first["digest"]


def test_an_archive_is_uploaded_as_what_is_in_it(aiml: Run, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", DEMO)
    answer = json.loads(aiml("models", "upload", archive, "--json").stdout)
    assert answer["name"] == "packed"
    assert "config.json" in {file["path"] for file in answer["files"]}
    assert "no longer staged" in aiml("models", "discard", "packed").stdout


def test_a_file_that_is_refused_is_named(aiml: Run, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("print()")
    assert "run.py" in aiml("models", "upload", str(tmp_path / "run.py"), code=1).stderr


def test_a_version_that_serves_is_deleted_only_by_force(aiml: Run, tmp_path: Path) -> None:
    aiml("models", "register", "gone", "--task", "text-generation", "--ollama", "tiny", "--stage", "production")
    assert "force" in aiml("models", "delete", "gone", "1", code=1).stderr
    assert "is deleted" in aiml("models", "delete", "gone", "1", "--force").stdout
    assert "gone" not in aiml("models", "list", "--all").stdout


def test_an_interrupted_watch_leaves_the_download_to_the_service(aiml: Run, service: Service, hub: FakeHub) -> None:
    hub.faults.slow(20_000)
    process = start(service, "models", "download", "org/slow", start_new_session=True)
    wait_until(lambda: _running_jobs(aiml), 60, "the download to begin")
    time.sleep(2)  # until its own process has heard of the job, too
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    job = re.search(r"aiml jobs watch (\w+)", err)
    assert job is not None, err
    assert f"aiml jobs cancel {job[1]}" in err
    assert json.loads(aiml("jobs", "show", job[1], "--json").stdout)["status"] == "running"
    hub.faults.slow(None)
    assert json.loads(aiml("jobs", "watch", job[1], "--json").stdout)["status"] == "succeeded"


def test_a_download_can_be_cancelled(aiml: Run, hub: FakeHub) -> None:
    hub.faults.slow(20_000)
    job = json.loads(aiml("models", "download", "org/unwanted", "--no-wait", "--json").stdout)["id"]
    wait_until(lambda: _running_jobs(aiml), 60, "the download to begin")
    aiml("jobs", "cancel", job)
    assert "cancelled" in aiml("jobs", "watch", job, code=1).stderr
    assert job in aiml("jobs", "list", "--status", "cancelled").stdout
    hub.faults.slow(None)


def test_a_data_set_goes_in_and_comes_out_again(aiml: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    commit = aiml("datasets", "upload", str(tmp_path / "rows.csv"), "--to-lakefs", "tables").stdout.strip()
    folder = Path(aiml("datasets", "checkout", "tables", commit[:12]).stdout.strip())
    assert (folder / "rows.csv").read_text() == "a,b\n1,2\n"
    assert str(folder) in aiml("datasets", "list").stdout


def test_figures_and_health_are_printed(aiml: Run) -> None:
    assert "by engine / transformers" in aiml("models", "stats").stdout
    assert re.search(r"^mlflow +yes", aiml("models", "health").stdout, re.MULTILINE)


def peak_memory(pid: int) -> int:
    """The most that a process's own program ever had resident, in bytes; `ru_maxrss` counts its parent's before it."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def test_a_large_upload_takes_no_memory(service: Service, tmp_path: Path, figure: Figure) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(400_000_000)
    process = start(service, "datasets", "upload", str(path))
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid))
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "(400 MB)" in out
    figure(f"aiml datasets upload of 400 MB: {peak / 1e6:.0f} MB of memory at most")
    assert 0 < peak < 250_000_000


def test_serve_runs_the_service_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").write_text("raise SystemExit('the wrong src')\n")
    port = free_port()
    script = f"import sys; sys.path[0] = {str(ROOT)!r}; from src.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "serve", "--port", str(port)],
        cwd=tmp_path,
        env=environment(tmp_path / "data", AIML_SAMPLES="off", AIML_LOG_FORMAT="json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: _alive(port) or process.poll() is not None, 60, "the service to answer")
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
    finally:
        stop(process)
        process.communicate()


def _running_jobs(aiml: Run) -> list[Any]:
    jobs = json.loads(aiml("jobs", "list", "--status", "running", "--json").stdout)
    return [job for job in jobs if job["bytes_done"]]


def _alive(port: int) -> bool:
    try:
        return CLIENT.get(f"http://127.0.0.1:{port}/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
