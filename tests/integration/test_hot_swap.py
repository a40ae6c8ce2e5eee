"""A stage transition under load: no request fails, and every answer says which version made it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import manager_of
from tests.service import Service, running_service, wait_until
from tests.slow_plugin import ENGINE, TASK, install, slow_model

Figure = Callable[[str], None]

MODEL = "teller"
LOAD_SECONDS = 2.0


@dataclass(frozen=True)
class Seen:
    """One request: when it started and ended (monotonic seconds), its status, its answer, who made it."""

    started: float
    ended: float
    status: int
    text: str
    version: str | None


@pytest.fixture(
    scope="module",
    params=[pytest.param("always", id="forked"), pytest.param("never", id="fresh", marks=pytest.mark.slow)],
)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with four versions of a model: two that take two seconds to load, one broken, one deadly."""
    folder = tmp_path_factory.mktemp("swap")
    data_dir = folder / "data"
    data_dir.mkdir()
    models = manager_of(data_dir)
    for number, fault in ((1, None), (2, None), (3, "broken"), (4, "deadly")):
        path = slow_model(folder / f"v{number}", f"version {number}", seconds=LOAD_SECONDS, fault=fault)
        tags = {"task": TASK, "engine": ENGINE}
        models.register_model_to_mlflow(MODEL, "local", path, tags, stage="production" if number == 1 else None)
    models.close()
    with running_service(data_dir, AIML_WORKERS__PRELOAD=request.param, **install(folder / "plugin")) as running:
        yield running


@pytest.fixture(autouse=True)
def _version_1_serves(service: Service) -> None:
    service.post("/inference/cache/clear")
    assert move(service, "1").status_code == 200


def move(service: Service, version: str, stage: str = "production", **more: Any) -> Any:
    return service.post("/models/transition_stage", {"model_name": MODEL, "version": version, "stage": stage, **more})


def ask(service: Service, model: str = MODEL, **data: Any) -> Seen:
    started = time.monotonic()
    response = service.post(
        "/inference/infer",
        {"task": TASK, "engine": ENGINE, "model_name": model, "data": data or {"seconds": 0.01}, "options": {}},
    )
    body = response.json()
    text = body["result"]["response"] if body["success"] else body["error"]
    return Seen(started, time.monotonic(), response.status_code, text, body.get("provenance", {}).get("version"))


def loads(service: Service) -> dict[str, int]:
    entries = service.get("/inference/stats").json()["models"].get(MODEL, {}).get("loaded", [])
    return {entry["version"]: entry["loads"] for entry in entries}


def busy(service: Service) -> list[str]:
    """Returns the versions that have a request inside."""
    entries = service.get("/inference/stats").json()["models"].get(MODEL, {}).get("loaded", [])
    return [entry["version"] for entry in entries if entry["in_flight"]]


class Clients:
    """Threads that ask without a pause until they are told to stop."""

    def __init__(self, service: Service, count: int) -> None:
        self.seen: list[Seen] = []
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.seen.append(ask(self._service))

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Waits until so many more requests were answered."""
        wanted = len(self.seen) + count
        wait_until(lambda: len(self.seen) >= wanted, 60, f"{count} answers")


def test_sixteen_clients_notice_nothing(service: Service, figure: Figure) -> None:
    ask(service)
    before = loads(service)
    with Clients(service, 16) as clients:
        clients.wait_for(50)
        called = time.monotonic()
        answer = move(service, "2").json()
        switched = time.monotonic()
        clients.wait_for(50)
        back_called = time.monotonic()
        back_answer = move(service, "1").json()
        back = time.monotonic()
        clients.wait_for(50)

    assert [seen for seen in clients.seen if seen.status != 200] == []
    assert all(seen.text == f"version {seen.version}" for seen in clients.seen)
    assert {seen.version for seen in clients.seen if seen.ended < called} == {"1"}
    assert {seen.version for seen in clients.seen if switched < seen.started and seen.ended < back_called} == {"2"}
    assert {seen.version for seen in clients.seen if seen.started > back} == {"1"}
    assert any(called < seen.started and seen.ended < switched for seen in clients.seen), "it answered while it loaded"
    assert answer["serving"] == {"production": "2"}
    assert [entry["version"] for entry in answer["swap"]["loaded"]] == ["2"]
    assert back_answer["serving"] == {"production": "1"}
    assert loads(service) == {**before, "2": 1}, "going back loads nothing"
    counts = Counter(seen.version for seen in clients.seen)
    figure(
        f"hot swap under 16 clients: {len(clients.seen)} answers, 0 failed ({dict(counts)}); to version 2 in "
        f"{switched - called:.2f} s (its load takes {LOAD_SECONDS:g} s), back in {back - back_called:.3f} s"
    )


def test_a_request_that_spans_the_switch_ends_on_the_version_it_began_on(service: Service, tmp_path: Path) -> None:
    ask(service)
    spanning: list[Seen] = []
    client = threading.Thread(target=lambda: spanning.append(ask(service, until=str(tmp_path / "go on"))))
    client.start()
    try:
        wait_until(lambda: "1" in busy(service), 20, "the request to be inside")
        assert move(service, "2").status_code == 200
        after = ask(service)
    finally:
        (tmp_path / "go on").touch()
        client.join()

    assert (after.version, spanning[0].version, spanning[0].status) == ("2", "1", 200)
    assert spanning[0].ended > after.ended


@pytest.mark.parametrize(("version", "reason"), [("3", "these weights are broken"), ("4", "died while it loaded")])
def test_one_that_cannot_load_leaves_the_old_one_serving(service: Service, version: str, reason: str) -> None:
    ask(service)
    with Clients(service, 4) as clients:
        refused = move(service, version)
        clients.wait_for(10)

    assert refused.status_code == 409
    assert reason in refused.json()["error"]
    assert refused.json()["error_type"] == "TransitionRefusedError"
    assert {(seen.status, seen.version) for seen in clients.seen} == {(200, "1")}
    listed = service.get(f"/models/registered_in_mlflow/{MODEL}?all_version=true").json()
    assert listed["serving"] == {"production": "1"}
    assert {entry["version"]: entry["stage"] for entry in listed["versions"]}[version] == "none"
    assert set(loads(service)) == {"1"}, "what could not load is not tried again"


def test_staging_a_model_that_nobody_has_loaded_loads_nothing(service: Service) -> None:
    answer = move(service, "2", "staging").json()

    assert answer["swap"]["loaded"] == []
    assert loads(service) == {}
    assert move(service, "2", "none").status_code == 200


def test_moving_the_serving_version_away_swaps_to_its_heir(service: Service) -> None:
    assert move(service, "2").status_code == 200
    ask(service)

    answer = move(service, "2", "archived").json()

    assert answer["serving"] == {"production": "1"}
    assert [entry["version"] for entry in answer["swap"]["loaded"]] == ["1"]
    assert ask(service).version == "1"


def test_both_do_not_fit_is_507_unless_downtime_is_allowed(tmp_path: Path, tiny_model: Path) -> None:
    from tests.tiny_models import tiny_llama

    data_dir = tmp_path / "data"
    data_dir.mkdir()
    models = manager_of(data_dir)
    for seed in (1, 2):
        path = tiny_llama(tmp_path / f"v{seed}", seed=seed)
        tags = {"task": "text-generation", "engine": "transformers"}
        models.register_model_to_mlflow("tight", "local", path, tags, stage="production" if seed == 1 else None)
    models.close()
    body = {"model_name": "tight", "version": "2", "stage": "production"}
    # A fresh worker books about 600 MB, so that two do not fit.
    with running_service(data_dir, AIML_WORKERS__PRELOAD="never", AIML_MEMORY_BUDGET="1000MB") as service:
        assert service.infer("tight", max_new_tokens=2).status_code == 200

        refused = service.post("/models/transition_stage", body)
        still = service.infer("tight", max_new_tokens=2).json()
        moved = service.post("/models/transition_stage", {**body, "allow_downtime": True})
        then = service.infer("tight", max_new_tokens=2).json()

    assert refused.status_code == 507
    assert "allow_downtime" in refused.json()["error"]
    assert still["provenance"]["version"] == "1"
    assert moved.status_code == 200, moved.text
    assert moved.json()["swap"]["downtime_seconds"] > 0
    assert then["provenance"]["version"] == "2"
