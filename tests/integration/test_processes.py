"""Workers and the service, killed: nothing is lost, nothing stays behind."""

import concurrent.futures
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import register_models
from tests.service import ROOT, Service, environment, is_alive, running_service, wait_until

BUSY = {"max_new_tokens": 8000, "min_length": 8000}


def test_a_killed_worker_fails_its_requests_as_retryable_and_the_next_succeeds(service: Service) -> None:
    service.infer("tiny", max_new_tokens=1)
    pid = _worker_of(service, "tiny")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [pool.submit(service.infer, "tiny", **BUSY) for _ in range(3)]
        wait_until(lambda: _inside(service) == 3, 20, "three requests to be inside")
        os.kill(pid, signal.SIGKILL)
        answers = [future.result() for future in waiting]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error_type"] == "WorkerDiedError"
        assert answer.json()["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 1
    assert service.infer("tiny", max_new_tokens=1).status_code == 200
    assert _worker_of(service, "tiny") != pid


def test_sigkill_of_the_service_leaves_no_worker_and_the_next_start_works(own_data_dir: Path) -> None:
    with running_service(own_data_dir) as service:
        assert service.infer("tiny", max_new_tokens=1).status_code == 200
        workers = service.workers()
        assert workers
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in workers), 5, "the workers to be gone")
    with running_service(own_data_dir) as service:
        assert service.infer("tiny", max_new_tokens=1).status_code == 200


def test_a_worker_in_the_middle_of_a_generation_goes_with_the_service(own_data_dir: Path) -> None:
    with running_service(own_data_dir) as service, concurrent.futures.ThreadPoolExecutor() as pool:
        service.infer("tiny", max_new_tokens=1)
        workers = service.workers()
        pool.submit(service.infer, "tiny", **BUSY)
        wait_until(lambda: _inside(service) == 1, 20, "the request to be inside")
        service.process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in workers), 5, "the workers to be gone")


def test_an_orderly_stop_leaves_no_worker(own_data_dir: Path) -> None:
    with running_service(own_data_dir) as service:
        service.infer("tiny", max_new_tokens=1)
        workers = service.workers()
    assert service.process.returncode in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it was sent
    wait_until(lambda: not any(is_alive(pid) for pid in workers), 5, "the workers to be gone")


def test_two_services_beside_each_other(tmp_path: Path, own_data_dir: Path, tiny_model: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    register_models(other, tiny_model)
    with running_service(own_data_dir) as one, running_service(other) as two:
        assert one.infer("tiny", max_new_tokens=1).status_code == 200
        assert two.infer("tiny", max_new_tokens=1).status_code == 200


def test_the_service_refuses_to_listen_beyond_loopback_without_a_key(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "src.main"],
        cwd=ROOT,
        env=environment(tmp_path, AIML_HOST="0.0.0.0", AIML_PORT="0"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "AIML_API_KEYS" in done.stderr


def _worker_of(service: Service, model: str) -> int:
    loaded = service.get("/inference/stats").json()["models"][model]["loaded"]
    return int(next(entry["pid"] for entry in loaded if entry["pid"]))


def _inside(service: Service) -> int:
    stats = service.get("/inference/stats").json()["models"].get("tiny", {})
    return sum(entry["in_flight"] + entry["queued"] for entry in stats.get("loaded", []))
