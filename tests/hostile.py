"""A running service with faulty decoders, and how media are sent to it."""

import base64
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from src.media.detection import ACCEPTED
from tests import media_plugin
from tests.servers import answers_http, running
from tests.service import CLIENT, ROOT, Service, children_of, command_line, environment, free_port
from tests.unit.media.media_files import noise, picture
from tests.unit.media.sites import Site, running_site

PIXELS = noise()
PNG = picture(PIXELS)
UPLOAD = "/inference/infer/upload"
MAX_MB, MAX_IMAGE_MB, MAX_INPUTS, MAX_JSON_MB, DECODE_TIMEOUT, MEMORY_MB, MAX_WAITING = 6, 2, 3, 4, 8, 256, 12
Files = Sequence[tuple[str, tuple[Any, ...]]]


@dataclass
class Hostile:
    """The service, its media root, and a site on this machine of which it may fetch one host and port."""

    service: Service
    root: Path
    site: Site

    def ask(self, data: Mapping[str, Any], *, task: str = media_plugin.TASK) -> httpx.Response:
        """Asks by JSON."""
        return self.service.post("/inference/infer", {**request(task), "data": data})

    def upload(self, files: Files, *, data: Any = None, task: str = media_plugin.TASK) -> httpx.Response:
        """Asks with files beside the request."""
        part = ("request", (None, json.dumps({**request(task), "data": data or {}})))
        return CLIENT.post(self.service.url + UPLOAD, files=[part, *files], timeout=120)

    def send(self, kind: str, content: bytes) -> httpx.Response:
        """Uploads one file of a kind of media."""
        return self.upload([(kind, ("file", content))])

    def works(self) -> int:
        """Returns the process that the model answers from; fails where it does not answer."""
        response = self.send("image", PNG)
        assert response.status_code == 200, response.text
        assert response.json()["result"]["shapes"]["image"][0]["pixels"] == list(PIXELS.shape)
        return int(response.json()["result"]["pid"])

    def decoders(self) -> list[int]:
        """Returns the decoder processes."""
        return [pid for pid in children_of(self.service.process.pid) if "src.media.child" in command_line(pid)]

    def uploads(self) -> list[Path]:
        """Returns the files and folders that uploads have left, or are using."""
        folder = self.service.data_dir / "tmp" / "uploads"
        return [path for own in folder.iterdir() if own.is_dir() for path in own.iterdir()]


def request(task: str = media_plugin.TASK) -> dict[str, Any]:
    """Returns a request without its data."""
    return {"task": task, "engine": media_plugin.ENGINE, "model_name": "any"}


def data_uri(content: bytes) -> str:
    """Returns a file as it stands in JSON."""
    return "data:;base64," + base64.b64encode(content).decode()


def refused(response: httpx.Response, *statuses: int) -> dict[str, Any]:
    """Returns the failure envelope of what was the caller's fault."""
    body: dict[str, Any] = response.json()
    assert response.status_code in statuses, body
    assert body["success"] is False
    assert body["retryable"] is False
    assert body["error_type"]
    assert body["request_id"]
    return body


def undecodable(response: httpx.Response, kind: str, *, field: str | None = None) -> dict[str, Any]:
    """Returns the failure envelope of a file that cannot be decoded: it names field, detected type, accepted ones."""
    body = refused(response, 400, 413)
    details, name = body["details"], field or f"data.{kind}"
    assert details["field"] == name
    assert f"`{name}`" in body["error"]
    assert "detected" in details
    if details["detected"]:
        assert details["detected"] in body["error"]
    assert details["accepted"] == list(ACCEPTED[kind])
    return body


@contextmanager
def running_hostile(folder: Path, *, data_dir: Path | None = None) -> Iterator[Hostile]:
    """Starts the service with small bounds."""
    data_dir, root, port = data_dir or folder / "data", folder / "root", free_port()
    data_dir.mkdir(exist_ok=True)
    root.mkdir()
    with running_site(PNG) as site:
        bounds = {"MAX_MB": MAX_MB, "MAX_IMAGE_MB": MAX_IMAGE_MB, "MAX_INPUTS": MAX_INPUTS}
        bounds |= {"DECODE_TIMEOUT": DECODE_TIMEOUT, "MEMORY_MB": MEMORY_MB, "IDLE_SECONDS": 2}
        bounds |= {"MAX_WAITING": MAX_WAITING}
        settings = {f"AIML_MEDIA__{name}": str(value) for name, value in bounds.items()}
        settings |= {"AIML_MAX_BODY_MB": str(MAX_JSON_MB), "AIML_SAMPLES": "off", "AIML_PORT": str(port)}
        settings |= {"AIML_MEDIA_ROOTS": str(root), "AIML_FETCH_ALLOW": f"files.test:{site.port}"}
        env = environment(data_dir, **media_plugin.install(folder / "plugin"), **settings, AIML_LOG_FORMAT="json")
        url, log = f"http://127.0.0.1:{port}", folder / "service.log"
        command = [sys.executable, "-m", "tests.hostile_service"]
        ready = lambda: answers_http(f"{url}/livez")  # noqa: E731
        with running(command, ready=ready, log=log, cwd=ROOT, env=env) as process:
            yield Hostile(Service(url, process, data_dir, log), root, site)


def open_files(pid: int) -> int:
    """Returns how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
