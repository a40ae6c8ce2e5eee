"""A registry that is missing or locked: what was served is still served, and nothing is made anew."""

import sqlite3
import time
from pathlib import Path

from tests.service import Service, running_service, wait_until


def status(service: Service) -> str:
    return str(service.get("/inference/health").json()["status"])


def test_a_missing_registry_is_not_made_anew_and_recovers_when_it_is_back(own_data_dir: Path) -> None:
    database, away = own_data_dir / "mlflow.db", own_data_dir / "mlflow.db.away"
    database.rename(away)
    with running_service(own_data_dir) as service:
        answer = service.infer("tiny", max_new_tokens=1).json()
        assert answer["success"], answer
        assert answer["provenance"]["version"] == "1"
        assert any("snapshot" in warning for warning in answer["warnings"])
        wait_until(lambda: status(service) == "degraded", 30, "the status to be degraded")
        reason = service.get("/inference/health").json()["dependencies"]["mlflow"]["reason"]
        assert "mlflow.db" in reason
        assert not database.exists()
        away.rename(database)
        wait_until(lambda: status(service) == "healthy", 30, "the status to be healthy again")
        assert "warnings" not in service.infer("tiny", max_new_tokens=1).json()


def test_a_locked_registry_does_not_keep_requests_waiting(own_data_dir: Path) -> None:
    with running_service(own_data_dir) as service:
        service.infer("tiny", max_new_tokens=1)
        lock = sqlite3.connect(own_data_dir / "mlflow.db", isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            started = time.monotonic()
            assert service.infer("tiny", max_new_tokens=1).status_code == 200
            assert time.monotonic() - started < 20
        finally:
            lock.close()


def test_readiness_fails_only_for_models_listed_as_required(own_data_dir: Path) -> None:
    with running_service(own_data_dir, AIML_REQUIRED_MODELS="tiny") as service:
        assert service.get("/readyz").status_code == 200
    with running_service(own_data_dir, AIML_REQUIRED_MODELS="tiny,ghost") as service:
        response = service.get("/readyz")
        assert response.status_code == 503
        assert "ghost" in response.json()["reason"]


def test_health_answers_while_the_registry_comes_up(own_data_dir: Path) -> None:
    started = time.monotonic()
    with running_service(own_data_dir) as service:
        assert service.get("/inference/health").status_code == 200
        assert time.monotonic() - started < 30
