"""SIGKILL at random moments while models are downloaded and committed: every job ends, and nothing is sent twice."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.core.lifecycle.storage import open_store
from src.core.lifecycle.transfers import commit_details
from src.core.stores.hashing import CHUNK
from src.testing.fake_hub import FakeHub, FakeRepo
from src.testing.fake_lakefs import FakeLakefs
from tests.integration.conftest import manager_of
from tests.service import Service, running_service, wait_until

Figure = Callable[[str], None]

KILLS = 50
SEED = 20261121
FILES = 30
FILE_BYTES = 4_000_000
SPEED = 40_000_000  # bytes per second of the hub
LONGEST = 6.0  # seconds from a start to the kill; a service is up after about one
# What a killed transfer had received and not written: the files that came at the time.
LOST_PER_KILL = 4 * FILE_BYTES


@dataclass
class Watch:
    """Drives one job after the other: a download, then its upload, then the next model's."""

    service_url: str = ""
    steps: int = 0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    def look(self) -> None:
        """Submits what comes next once the last job has ended; notes where it is."""
        if self.jobs:
            self.seen = self._ask("GET", f"/jobs/{self.jobs[-1]['id']}")
            if self.seen["finished_at"] is None:
                return
            self.steps += self.seen["status"] == "succeeded"  # or again what was given up
        self.jobs.append(self._submit(self.steps))

    def reach(self, steps: int) -> bool:
        """Looks, and says whether so many jobs have succeeded, and none is unfinished."""
        if self.steps < steps:
            self.look()
            return False
        self.seen = self._ask("GET", f"/jobs/{self.jobs[-1]['id']}")
        return self.seen["finished_at"] is not None

    def _submit(self, number: int) -> dict[str, Any]:
        name = f"org/model-{number // 2}"
        if number % 2 == 0:
            return self._ask("POST", "/models/download", {"model_source": "huggingface", "model_name": name})
        body = {"repo_name": f"repo-{number // 2}", "local_model_name": name.replace("/", "_")}
        return self._ask("POST", "/models/upload_to_lakefs?wait=false", body)

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = httpx.request(method, self.service_url + path, json=body, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def phase(self) -> str:
        """Says where the last job was when it was looked at."""
        if not self.seen or self.seen["finished_at"] is not None:
            return "between jobs"
        share = self.seen["progress"] or 0.0
        part = "at its beginning" if share < 0.1 else "at its end" if share > 0.9 else "in the middle"
        return f"{self.seen['kind']} {self.seen['status']} {part}"


def model_files(folder: Path, seed: int) -> Path:
    """Writes a model; random bytes, repeated, so that making it takes no time."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    for number in range(FILES):
        with open(folder / f"part-{number:02}.safetensors", "wb") as file:
            for _ in range(FILE_BYTES // CHUNK):
                file.write(rng.randbytes(1024) * (CHUNK // 1024))
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    return folder


@pytest.fixture(params=["local", "lakefs"])
def store(request: pytest.FixtureRequest) -> Iterator[tuple[FakeLakefs | None, dict[str, str]]]:
    """Each kind of version store: a lakeFS or None, and the settings that lead there."""
    if request.param == "local":
        yield None, {}
        return
    with FakeLakefs() as server:
        yield (
            server,
            {
                "LAKEFS_ENDPOINT": server.url,
                "LAKEFS_ACCESS_KEY_ID": server.access_key_id,
                "LAKEFS_SECRET_ACCESS_KEY": server.secret_access_key,
            },
        )


@contextmanager
def started(data_dir: Path, watch: Watch, settings: dict[str, str]) -> Iterator[Service]:
    """The service, where the watch finds it."""
    with running_service(data_dir, AIML_WORKERS__PRELOAD="never", **settings) as service:
        watch.service_url = service.url
        yield service


@pytest.mark.slow
def test_fifty_random_kills(
    store: tuple[FakeLakefs | None, dict[str, str]], tmp_path: Path, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = store
    sources = [model_files(tmp_path / f"source-{number}", number) for number in range(3)]
    draw = random.Random(SEED)
    watch, phases = Watch(), Counter[str]()
    # More repositories than can be asked for in that time, over three sets of files.
    repos = [FakeRepo.from_folder(f"org/model-{number}", sources[number % 3]) for number in range(3 * KILLS)]
    with FakeHub(repos) as hub:
        hub.faults.slow(SPEED)
        settings = {**settings, "HF_ENDPOINT": hub.url}
        for _ in range(KILLS):
            until = time.monotonic() + draw.uniform(0.6, LONGEST)
            with started(tmp_path / "data", watch, settings) as service:
                while time.monotonic() < until:
                    watch.look()
                    time.sleep(0.02)
                service.process.kill()
                service.process.wait()
            phases[watch.phase()] += 1
        hub.faults.slow(None)
        with started(tmp_path / "data", watch, settings) as service:
            steps = watch.steps // 2 * 2 + 2  # the model that is under way, to its commit
            wait_until(lambda: watch.reach(steps), 240, "the last model to be downloaded and committed")
            listed = service.get("/jobs?limit=1000").json()
        sent = hub.bytes_sent()

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    settings_now = manager_of(tmp_path / "data").settings
    versions = open_store(settings_now)
    given_up = [job for job in listed if job["status"] == "failed"]
    assert {job["id"] for job in listed} == {job["id"] for job in watch.jobs}, "none is lost"
    assert all(job["finished_at"] for job in listed)
    assert {job["error_type"] for job in given_up} <= {"ProcessDiedError"}, given_up
    downloads = [job for job in listed if job["kind"] == "download" and job not in given_up]
    uploads = [job for job in listed if job["kind"] == "upload_to_lakefs" and job not in given_up]
    assert {job["status"] for job in (*downloads, *uploads)} == {"succeeded"}
    for job in uploads:
        commit = versions.verify(job["request"]["repo_name"], job["result"]["commit_id"])
        assert commit_details(commit)["digest"] == job["result"]["digest"]
        assert len(commit.files) == FILES + 1
        log = [entry for entry in versions.log(commit.repo) if entry.files]
        assert len(log) == 1, "one commit, or none"
    size = FILES * (FILE_BYTES // CHUNK) * CHUNK
    assert sent <= len(downloads) * size + KILLS * LOST_PER_KILL
    figure(
        f"{KILLS} kills (seed {SEED}) over {dict(phases)}: {len(downloads)} downloads and {len(uploads)} uploads "
        f"succeeded, {len(given_up)} given up; the hub sent {sent / (len(downloads) * size):.2f} of their size"
        + (f", lakeFS received {received(server) / (len(uploads) * size):.2f}" if server else "")
    )


def received(server: FakeLakefs) -> int:
    """Returns the bytes of objects that were uploaded."""
    return sum(request.bytes_received for request in server.requests if request.operation == "upload_object")
