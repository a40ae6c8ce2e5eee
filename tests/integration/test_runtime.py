"""The runtime under load and under fire: single-flight, deaths, quarantine, admission, cancellation.

Both ways of starting a worker, forked from the preloader and fresh, pass the same tests.
"""

import concurrent.futures
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import manager_of
from tests.integration.test_processes import BUSY
from tests.service import Service, children_of, command_line, is_alive, process_state, running_service, wait_until
from tests.tiny_models import tiny_llama

Figure = Callable[[str], None]

TAGS = {"task": "text-generation", "engine": "transformers"}
MODELS = [f"model-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with ten models that differ."""
    folder = tmp_path_factory.mktemp("runtime")
    models = manager_of(folder / "data")
    for seed, name in enumerate(MODELS):
        models.register_model_to_mlflow(name, "local", tiny_llama(folder / name, seed=seed), TAGS, stage="production")
    models.close()
    return folder / "data"


@pytest.fixture(scope="module", params=["always", "never"], ids=["forked", "fresh"])
def service(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Service]:
    """The service, with or without a preloader."""
    with running_service(data_dir, AIML_WORKERS__PRELOAD=request.param) as running:
        running.infer(MODELS[0], max_new_tokens=1)
        yield running


def loaded(service: Service, model: str) -> dict[str, Any]:
    entries = service.get("/inference/stats").json()["models"].get(model, {}).get("loaded", [])
    return entries[0] if entries else {}


def ask(service: Service, model: str, **options: Any) -> int:
    return service.infer(model, max_new_tokens=2, **options).status_code


def test_fifty_cold_requests_are_one_load(service: Service) -> None:
    service.post("/inference/cache/clear")
    before = loaded(service, MODELS[1]).get("loads", 0)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda _: ask(service, MODELS[1]), range(50)))
    assert statuses == [200] * 50
    assert loaded(service, MODELS[1])["loads"] == before + 1


def test_a_death_mid_request_concerns_that_model_alone(service: Service) -> None:
    victim, bystander = MODELS[2], MODELS[3]
    assert [ask(service, victim), ask(service, bystander)] == [200, 200]
    pid, loads = loaded(service, victim)["pid"], loaded(service, victim)["loads"]
    stop, seen = threading.Event(), Counter[int]()

    def watch() -> None:
        while not stop.is_set():
            seen[ask(service, bystander)] += 1

    def told_the_truth() -> bool:
        denied = service.get("/readyz", params={"model": victim}).status_code == 503
        return denied or bool(loaded(service, victim).get("loads", 0) > loads)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = [pool.submit(service.infer, victim, **BUSY) for _ in range(3)]
            wait_until(lambda: _inside(service, victim) == 3, 20, "the requests to be inside")
            os.kill(pid, signal.SIGKILL)
            wait_until(told_the_truth, 20, "readiness to be denied, or the model to be back already")
            answers = [future.result() for future in waiting]
        assert {(a.status_code, a.json()["retryable"]) for a in answers} == {(503, True)}
        assert ask(service, victim) == 200
        assert service.get("/readyz", params={"model": victim}).status_code == 200
    finally:
        stop.set()
        watcher.join()
    assert set(seen) == {200}


def test_fifty_cancelled_clients_leave_an_idle_worker(service: Service, figure: Figure) -> None:
    model = MODELS[4]
    before = _requests_per_second(service, model)
    body = {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": model,
        "data": {"inputs": "Hi"},
        "options": BUSY,
    }

    def leave(_: int) -> None:
        try:
            answer = httpx.post(service.url + "/inference/infer", json=body, timeout=httpx.Timeout(30, read=0.5))
        except httpx.ReadTimeout:
            return
        raise AssertionError(answer.text)

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(leave, range(50)))
    left = time.monotonic()
    wait_until(lambda: _inside(service, model) == 0, 10, "the worker to be idle")
    figure(f"idle {time.monotonic() - left:.2f} s after the last of fifty clients left")
    after = _requests_per_second(service, model)
    figure(f"{before:.0f} requests/s before, {after:.0f} after")
    assert after > before / 3


@pytest.mark.parametrize("who", ["gateway", "preloader", "worker"])
def test_sigkill_leaves_nothing_behind_and_the_service_works_on(data_dir: Path, who: str) -> None:
    with running_service(data_dir) as service:
        assert ask(service, MODELS[0]) == 200
        family = _family(service)
        preloader = next(
            pid for pid in family if "workers.preloader" in command_line(pid) and _parent(pid) == service.process.pid
        )
        worker = loaded(service, MODELS[0])["pid"]
        victim = {"gateway": service.process.pid, "preloader": preloader, "worker": worker}[who]
        doomed = {"gateway": family, "preloader": [preloader, worker], "worker": [worker]}[who]
        os.kill(victim, signal.SIGKILL)
        if who == "gateway":
            service.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in doomed), 5, "everything doomed to be gone")
        if who != "gateway":
            # A request in the moment before the death is noticed gets a retryable error.
            wait_until(lambda: ask(service, MODELS[0]) == 200, 30, "an answer")
    with running_service(data_dir) as service:
        assert ask(service, MODELS[0]) == 200


def test_a_model_that_does_not_fit_is_refused_with_what_would_help(data_dir: Path) -> None:
    with running_service(data_dir, AIML_MEMORY_BUDGET="100MB") as service:
        response = service.infer(MODELS[0], max_new_tokens=1)
        body = response.json()
        assert (response.status_code, body["error_type"]) == (507, "InsufficientMemoryError")
        assert body["details"]["budget_bytes"] == 100_000_000
        assert body["details"]["needed_bytes"] > 100_000_000
        assert "AIML_MEMORY_BUDGET" in body["error"]


def test_two_models_that_do_not_fit_together_take_turns(data_dir: Path) -> None:
    # A fresh worker books more than 500 MB, a forked one about 300: of these two may fit.
    with running_service(data_dir, AIML_WORKERS__PRELOAD="never", AIML_MEMORY_BUDGET="900MB") as service:
        for model in (MODELS[0], MODELS[1], MODELS[0]):
            assert ask(service, model) == 200
            assert service.get("/inference/stats").json()["cached_models"] == 1


DEADLY = """
import os
from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler

class DeadlyHandler(BaseModelHandler):
    pass

class DeadlyEngine(BaseEngine):
    name = "deadly"
    def __init__(self, config=None):
        super().__init__(config)
        self.supported_tasks = ["deadly"]
    def load_model(self, model_name, **kwargs):
        os._exit(7)
"""


def test_a_model_that_dies_at_every_load_is_quarantined_and_says_why(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "deadly_plugin.py").write_text(DEADLY)
    metadata = tmp_path / "deadly_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[aiml.handlers]\ndeadly = deadly_plugin:DeadlyHandler\n[aiml.engines]\ndeadly = deadly_plugin:DeadlyEngine\n"
    )
    body = {"task": "deadly", "engine": "deadly", "model_name": "doomed", "data": {}}
    with running_service(data_dir, PYTHONPATH=str(tmp_path), AIML_WORKERS__MAX_DEATHS="3") as service:

        def quarantined() -> bool:
            answer = service.post("/inference/infer", body)
            assert answer.status_code == 503
            return bool(answer.json()["error_type"] == "ModelQuarantinedError")

        wait_until(quarantined, 30, "the quarantine")
        answer = service.post("/inference/infer", body)
        assert "exited with code 7" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) > 1
        entry = loaded(service, "doomed")
        assert entry["state"] == "quarantined"
        assert "exited with code 7" in entry["reason"]
        assert ask(service, MODELS[0]) == 200


@pytest.mark.slow
def test_ten_models_under_a_budget_for_three(data_dir: Path, figure: Figure) -> None:
    seed, seconds, clients = 11, 60, 16
    with running_service(data_dir, AIML_MEMORY_BUDGET="1800MB", AIML_CACHE__MAX_SIZE="10") as service:
        right = {model: _text(service, model) for model in MODELS}
        assert len(set(right.values())) == len(MODELS)
        end = time.monotonic() + seconds
        statuses, wrong, above = Counter[int](), [], []

        def client(number: int) -> None:
            draw = random.Random(seed + number)
            while time.monotonic() < end:
                model = draw.choice(MODELS)
                response = service.infer(model, "Hello", max_new_tokens=8, seed=1)
                statuses[response.status_code] += 1
                if response.status_code == 200 and response.json()["result"]["generated_text"] != right[model]:
                    wrong.append(model)

        def inspect() -> None:
            while time.monotonic() < end:
                memory = service.get("/inference/stats").json()["memory"]["cpu"]
                # A loaded model that takes a little more than was booked for it is booked with what it takes.
                if memory["booked_bytes"] > memory["budget_bytes"] * 1.05:
                    above.append(memory)
                time.sleep(0.2)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        threads.append(threading.Thread(target=inspect))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 120)
        figure(f"seed {seed}, {clients} clients, {seconds} s: {dict(statuses)}")
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
        assert wrong == []
        assert above == []
        assert set(statuses) <= {200, 503, 507}
        assert statuses[200] > 100


@pytest.mark.slow
def test_a_hundred_load_cycles_leave_the_memory_as_it_was(data_dir: Path, figure: Figure) -> None:
    with running_service(data_dir) as service:
        for _ in range(10):
            _cycle(service)
        before = _resident(service)
        for _ in range(100):
            _cycle(service)
        after = _resident(service)
        figure(f"gateway and preloader, PSS: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after 100 cycles")
        assert after < before * 1.1
        wait_until(lambda: service.workers() == [], 5, "the workers to be gone")
        assert all(process_state(pid) is None or is_alive(pid) for pid in _family(service))


def _cycle(service: Service) -> None:
    assert ask(service, MODELS[0]) == 200
    assert service.post("/inference/cache/clear").json()["cleared_models"] == 1


def _resident(service: Service) -> int:
    from src.core.memory import process_memory

    wait_until(lambda: service.workers() == [], 10, "the workers to be gone")
    return sum(process_memory(pid) or 0 for pid in _family(service))


def _family(service: Service) -> list[int]:
    found = [service.process.pid]
    for pid in found:
        found += children_of(pid)
    return found


def _parent(pid: int) -> int | None:
    state = process_state(pid)
    return state[1] if state else None


def _inside(service: Service, model: str) -> int:
    entry = loaded(service, model)
    return int(entry.get("in_flight", 0) + entry.get("queued", 0))


def _text(service: Service, model: str) -> str:
    text: str = service.infer(model, "Hello", max_new_tokens=8, seed=1).json()["result"]["generated_text"]
    return text


def _requests_per_second(service: Service, model: str) -> float:
    ask(service, model)
    started = time.monotonic()
    for _ in range(30):
        assert ask(service, model) == 200
    return 30 / (time.monotonic() - started)
