"""The service that answers the rows: a model folder goes in by the documented routes, its answers come out."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.architectures.case import Case, Data, Outcome
from tests.architectures.media import as_json
from tests.service import Service, running_service

TEXT_FIELDS = ("generated_text", "description", "transcription", "text", "analysis", "answer")
"""Where the tasks' answers have their text."""
_REPO = "architectures"


class RefusedError(Exception):
    """The service answered a request of a row with an error."""


class Serving:
    """Asks one running service, one row after another."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @contextmanager
    def registered(self, case: Case) -> Iterator[Callable[[Data], Outcome]]:
        """Builds a row's model, commits and registers it; yields what asks it. Unloads it in the end."""
        name = f"{case.task}.{case.architecture}"
        folder = self._staging / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        case.build(folder)
        commit = self._post("/models/upload_to_lakefs", repo_name=_REPO, local_model_name=name, branch="main")
        self._post(
            "/models/register_from_lakefs",
            registered_name=name,
            task=case.task,
            engine="transformers",
            lakefs_repo=_REPO,
            commit_id=commit["commit_id"],
            stage="production",
        )
        try:
            yield lambda data: self._asked(case, name, data)
        finally:
            self._post("/inference/cache/clear")
            shutil.rmtree(folder)

    def folder(self, case: Case) -> Path:
        """Returns where the model of a registered row is."""
        return self._staging / f"{case.task}.{case.architecture}"

    @property
    def _staging(self) -> Path:
        return self._service.data_dir / "tmp" / "models"

    def _asked(self, case: Case, name: str, data: Data) -> Outcome:
        body = {
            "task": case.task,
            "engine": "transformers",
            "model_name": name,
            "data": as_json(data),
            "options": dict(case.options),
        }
        return outcome(self._post("/inference/infer", **body)["result"])

    def _post(self, path: str, **body: Any) -> Any:
        response = self._service.post(path, body)
        if response.status_code != httpx.codes.OK:
            raise RefusedError(f"{path} answers {response.status_code}: {_reason(response)}")
        return response.json()


@contextmanager
def serving(folder: Path) -> Iterator[Serving]:
    """Runs a service of its own with an empty data folder."""
    with running_service(folder / "data", AIML_LOG_LEVEL="WARNING") as service:
        yield Serving(service)


def outcome(result: dict[str, Any]) -> Outcome:
    """Reads any task's result."""
    texts = [result[name] for name in TEXT_FIELDS if isinstance(result.get(name), str)]
    answer = result["labels"] if "labels" in result else texts[0]
    numbers = result.get("metadata", {}).get("logprobs") or result.get("scores")
    if numbers is None:
        numbers = [result["score"]]
    return Outcome(answer, [float(number) for number in numbers])


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError):
        return response.text[:300]
