"""A service with what the lifecycle needs around it, and how its answers are read."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from src.testing.fake_hub import FakeHub, FakeRepo
from src.testing.fake_lakefs import FakeLakefs
from src.testing.fake_ollama import TINY, FakeModel, FakeOllama
from tests.service import CLIENT, ROOT, Service, running_service, wait_until

DEMO = ROOT / "samples" / "demo-text"
"""A small Llama that answers `What is 27 plus 45?` with 72."""
QWEN = FakeModel("qwen3:1.7b", parameter_count=1_700_000_000)

STORES = ["embedded", "lakefs"]
FOREIGN = b'{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}'
LLAMA = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'
NO_TENSORS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file."""


@dataclass
class Platform:
    """A running service, its hub, its Ollama, and its lakeFS where it has one."""

    service: Service
    hub: FakeHub
    ollama: FakeOllama
    lakefs: FakeLakefs | None

    def get(self, path: str, **query: Any) -> Any:
        """Gets what has to be there."""
        return ok(self.service.get(path, params=query))

    def post(self, path: str, body: Any = None) -> Any:
        """Posts what has to work."""
        return ok(self.service.post(path, body))

    def delete(self, path: str) -> httpx.Response:
        """Deletes."""
        return CLIENT.delete(self.service.url + path, timeout=60)

    def stage(self, name: str, files: Mapping[str, bytes], kind: str = "models") -> str:
        """Puts a folder into the staging area, as somebody does by hand; returns its name."""
        folder = self.service.data_dir / "tmp" / kind / name
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return name

    def commit(self, repo: str, name: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commits files by way of the staging area; returns the commit's id."""
        self.stage(name, files)
        body = {"repo_name": repo, "local_model_name": name, "branch": branch}
        return str(self.post("/models/upload_to_lakefs", body)["commit_id"])

    def finished(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """Returns a job once it has ended."""
        states: list[dict[str, Any]] = []

        def ended() -> bool:
            states.append(self.get(f"/jobs/{job_id}"))
            return states[-1]["finished_at"] is not None

        wait_until(ended, seconds, f"the job {job_id} to end")
        return states[-1]

    def litter(self) -> list[str]:
        """What lies in the staging areas beside what is staged whole."""
        roots = (self.service.data_dir / "tmp" / kind for kind in ("models", "datasets"))
        return sorted(path.name for root in roots if root.is_dir() for path in root.iterdir() if path.name[0] == ".")

    def staged_names(self, kind: str = "models") -> list[str]:
        """The names of what is staged whole."""
        return [entry["name"] for entry in self.get(f"/{kind}/local")]

    def registered_names(self) -> list[str]:
        """Every registered name, of anybody."""
        return [model["name"] for model in self.get("/models/registered_in_mlflow", show_all=True)]


@contextmanager
def running_platform(
    folder: Path, *, store: str = "embedded", repos: Iterable[FakeRepo] = (), **settings: str
) -> Iterator[Platform]:
    """Starts a hub with these repositories, an Ollama, the service, and a lakeFS for the store `lakefs`."""
    with ExitStack() as stack:
        hub = stack.enter_context(FakeHub(repos))
        ollama = stack.enter_context(FakeOllama([TINY, QWEN], pullable=[FakeModel("pulled")]))
        lakefs = stack.enter_context(FakeLakefs()) if store == "lakefs" else None
        servers = {"HF_ENDPOINT": hub.url, "OLLAMA_HOST": ollama.url, **lakefs_settings(lakefs)}
        service = stack.enter_context(running_service(folder / "data", **servers, **settings))
        yield Platform(service, hub, ollama, lakefs)


def lakefs_settings(server: FakeLakefs | None) -> dict[str, str]:
    """Returns the environment in which a service uses this lakeFS; an empty one for the embedded store."""
    if server is None:
        return {}
    return {
        "LAKEFS_ENDPOINT": server.url,
        "LAKEFS_ACCESS_KEY_ID": server.access_key_id,
        "LAKEFS_SECRET_ACCESS_KEY": server.secret_access_key,
    }


def ok(response: httpx.Response) -> Any:
    """Returns a good answer's body."""
    assert response.status_code == 200, response.text
    return response.json()


def refused(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Returns the failure envelope, whose message has all these words."""
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    assert body["success"] is False
    assert body["error_type"]
    for word in words:
        assert word in body["error"], body["error"]
    return body
