"""`aiml mlflow`: MLflow's own server and UI over the registry file that the running service uses."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.core.memory import private_memory
from tests.service import (
    CLIENT,
    ROOT,
    Service,
    children_of,
    environment,
    free_port,
    is_alive,
    running_service,
    wait_until,
)

Figure = Callable[[str], None]

START_SECONDS = 240.0
SEEN_SECONDS = 50.0
"""Ten times the longest that the service believes what it knows of a registry."""
API = "/api/2.0/mlflow"
"""Where MLflow's UI and its clients ask: https://mlflow.org/docs/latest/api_reference/rest-api.html"""


@dataclass
class Ui:
    """A running `aiml mlflow`."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def get(self, path: str, **options: Any) -> httpx.Response:
        return CLIENT.get(self.url + path, timeout=60, **options)

    def post(self, path: str, **body: Any) -> None:
        response = CLIENT.post(f"{self.url}{API}{path}", json=body, timeout=60)
        assert response.status_code == 200, response.text

    def family(self) -> list[int]:
        """Returns its processes."""
        found = [self.process.pid]
        for pid in found:
            found += children_of(pid)
        return found


@contextmanager
def running_ui(data_dir: Path, folder: Path) -> Iterator[Ui]:
    """Runs the UI, started from a folder of its own; ends it by Ctrl-C if it has not ended, and nothing is left."""
    port = free_port()
    with (folder / "ui.log").open("ab") as log:
        process = start(data_dir, folder, port, log)
    ui = Ui(f"http://127.0.0.1:{port}", process, folder)
    try:
        wait_until(lambda: _answers(ui), START_SECONDS, f"the UI to start; its log is {folder / 'ui.log'}")
        family = ui.family()
        yield ui
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0
    assert [pid for pid in family if is_alive(pid)] == []
    assert list((folder / "cwd").iterdir()) == []
    assert "MLflow's UI has stopped." in (folder / "ui.log").read_text()


def start(data_dir: Path, folder: Path, port: int, log: Any) -> "subprocess.Popen[bytes]":
    cwd = folder / "cwd"
    cwd.mkdir(exist_ok=True)
    script = f"import sys; sys.path[0] = {str(ROOT)!r}; from src.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, "mlflow", "--port", str(port)],
        cwd=cwd,
        env=environment(data_dir, TMPDIR=str(cwd), MLFLOW_DEFAULT_ARTIFACT_ROOT="s3://not-for-this-server"),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _answers(ui: Ui) -> bool:
    assert ui.process.poll() is None, (ui.folder / "ui.log").read_text()
    try:
        return ui.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the demo model."""
    data_dir = tmp_path_factory.mktemp("beside") / "data"
    with running_service(data_dir, samples="on") as running:
        wait_until((data_dir / "samples-registered").exists, 300, "the samples to be registered")
        yield running


@pytest.fixture(scope="module")
def ui(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The UI beside it."""
    with running_ui(service.data_dir, tmp_path_factory.mktemp("ui")) as running:
        yield running


def registered(service: Service, name: str = "demo-text") -> dict[str, Any]:
    answer = service.get(f"/models/registered_in_mlflow/{name}").json()
    assert isinstance(answer, dict)
    return answer


def test_the_page_and_the_demo_model_are_there(ui: Ui) -> None:
    page = ui.get("/")
    assert page.status_code == 200
    assert "<title>MLflow</title>" in page.text
    found = ui.get(f"{API}/registered-models/search").json()["registered_models"]
    assert "demo-text" in [model["name"] for model in found]


def test_a_tag_set_there_is_seen_by_the_service(ui: Ui, service: Service) -> None:
    assert "reviewed" not in registered(service)["tags"]
    ui.post("/model-versions/set-tag", name="demo-text", version="1", key="reviewed", value="yes")
    wait_until(lambda: registered(service)["tags"].get("reviewed") == "yes", SEEN_SECONDS, "the tag to be seen")


def test_an_alias_set_there_is_served(ui: Ui, service: Service) -> None:
    assert service.infer("demo-text@champion").status_code == 404
    ui.post("/registered-models/alias", name="demo-text", alias="champion", version="1")
    wait_until(lambda: service.infer("demo-text@champion").status_code == 200, SEEN_SECONDS, "the alias to be served")


def test_what_the_service_changes_is_shown_there(ui: Ui, service: Service) -> None:
    body = {"model_name": "demo-text", "version": "1", "stage": "staging"}
    assert service.post("/models/transition_stage", body).status_code == 200
    version = ui.get(f"{API}/model-versions/get", params={"name": "demo-text", "version": "1"}).json()["model_version"]
    assert {"key": "stage", "value": "staging"} in version["tags"]
    assert service.post("/models/transition_stage", {**body, "stage": "production"}).status_code == 200


def test_both_write_at_the_same_time(ui: Ui, service: Service) -> None:
    for number in range(10):
        ui.post("/model-versions/set-tag", name="demo-text", version="1", key=f"written-{number}", value="there")
        stage = "staging" if number % 2 else "production"
        moved = service.post("/models/transition_stage", {"model_name": "demo-text", "version": "1", "stage": stage})
        assert moved.status_code == 200, moved.text
    service.post("/models/transition_stage", {"model_name": "demo-text", "version": "1", "stage": "production"})
    written = {f"written-{number}" for number in range(10)}
    wait_until(lambda: written <= set(registered(service)["tags"]), SEEN_SECONDS, "all tags to be seen")
    assert service.get("/inference/health").json()["status"] == "healthy"


def test_a_page_of_another_site_cannot_drive_it(ui: Ui) -> None:
    assert ui.get(f"{API}/registered-models/search", headers={"Host": "evil.example"}).status_code == 403


def test_it_takes_few_processes_and_leaves_no_litter(ui: Ui, figure: Figure) -> None:
    family = ui.family()
    memory = sum(private_memory(pid) or 0 for pid in family) / 1e6
    figure(f"aiml mlflow: {len(family)} processes, {memory:.0f} MB private")
    assert len(family) == 3  # ours, MLflow's and its one worker
    assert [path.name.startswith("aiml-mlflow-") for path in (ui.folder / "cwd").iterdir()] == [True]


def test_a_second_one_on_its_port_says_so_and_leaves_it_alone(ui: Ui, service: Service, tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log:
        second = start(service.data_dir, tmp_path, int(ui.url.rpartition(":")[2]), log)
    assert second.wait(60) == 1
    assert "is an MLflow running there already? Choose another with --port" in (tmp_path / "log").read_text()
    assert ui.get("/health").status_code == 200


def test_a_termination_ends_all_of_it(tmp_path: Path, service: Service) -> None:
    shutil.copy(service.data_dir / "mlflow.db", tmp_path / "mlflow.db")
    with running_ui(tmp_path, tmp_path) as own:
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(60) == 0


@pytest.mark.slow
def test_a_registry_that_goes_away_is_not_made_anew(tmp_path: Path, service: Service) -> None:
    """MLflow tries for minutes to open it; Ctrl-C ends that too."""
    path = tmp_path / "mlflow.db"
    shutil.copy(service.data_dir / "mlflow.db", path)
    with running_ui(tmp_path, tmp_path) as own:
        path.unlink()
        with pytest.raises(httpx.ReadTimeout):
            CLIENT.get(f"{own.url}{API}/registered-models/search", timeout=5)
        assert not path.exists()
    assert not path.exists()
