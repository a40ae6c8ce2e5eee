"""A service that is told to stop: what it works on ends first, but not for ever."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service import Service, is_alive, running_service, wait_until
from tests.social_engines import install
from tests.sse import Event, streamed

INFER = "/inference/infer"
STEP_SECONDS = 0.005
DRAIN_SECONDS = 4.0
SOON, NEVER = 300, 100_000  # steps: a second and a half, and eight minutes


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with engines that take as long as they are asked to."""
    settings = {"AIML_DRAIN_SECONDS": str(DRAIN_SECONDS), "AIML_WORKERS__PRELOAD": "never"}
    with running_service(tmp_path / "data", **settings, **install(tmp_path / "plugin")) as running:
        assert running.post(INFER, asked(1)).status_code == 200
        yield running


def asked(tokens: int, *, stream: bool = False) -> dict[str, Any]:
    data = {"do": "it", "tokens": tokens}
    return {"task": "obey", "engine": "step", "model_name": "any", "data": data, "options": {"stream": stream}}


def inside(service: Service) -> bool:
    return bool(service.get("/inference/stats").json()["models"]["any"]["loaded"][0]["in_flight"])


class Reader:
    """Reads a stream in a thread; `begun` once a piece of it is here."""

    def __init__(self, service: Service, tokens: int) -> None:
        self.events: list[Event] = []
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(service.url + INFER, asked(tokens, stream=True)))
        self._thread.start()

    def _read(self, url: str, body: Any) -> None:
        with streamed(url, body) as (_, events):
            for event in events:
                self.events.append(event)
                self.begun.set()

    def wait(self) -> Event:
        """Returns the last event."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.events[-1]


def whole_answer(service: Service, pool: ThreadPoolExecutor, tokens: int) -> "Future[httpx.Response]":
    answer = pool.submit(service.post, INFER, asked(tokens))
    wait_until(lambda: inside(service), 20, "the request to be inside")
    return answer


def test_streams_and_answers_that_end_in_time_are_whole(service: Service) -> None:
    with ThreadPoolExecutor() as pool:
        answer = whole_answer(service, pool, SOON)
        reader = Reader(service, SOON)
        assert reader.begun.wait(20)
        service.process.send_signal(signal.SIGTERM)
        name, envelope = reader.wait()
    assert (name, envelope["success"]) == ("result", True)
    assert len(reader.events) > 1
    assert "".join(data["text"] for kind, data in reader.events if kind == "delta") == envelope["result"]["response"]
    assert envelope["result"]["response"].split()[-1] == str(SOON - 1)
    assert answer.result().json()["result"]["response"] == envelope["result"]["response"]
    service.process.wait(20)


@pytest.mark.parametrize("how", ["SIGTERM to the service", "Ctrl-C in its terminal"])
def test_what_takes_longer_is_told_so_and_the_service_ends(service: Service, how: str) -> None:
    workers = service.workers()
    assert workers
    with ThreadPoolExecutor() as pool:
        answer = whole_answer(service, pool, NEVER)
        reader = Reader(service, NEVER)
        assert reader.begun.wait(20)
        told = time.monotonic()
        if how.startswith("SIGTERM"):
            service.process.send_signal(signal.SIGTERM)
        else:
            os.killpg(service.process.pid, signal.SIGINT)  # a terminal tells every process of the group
        name, failure = reader.wait()
        whole = answer.result()
    lasted = time.monotonic() - told
    service.process.wait(20)
    assert lasted >= DRAIN_SECONDS - 0.5
    assert (name, failure["error_type"], failure["retryable"]) == ("error", "DrainingError", True)
    assert len(reader.events) > DRAIN_SECONDS / STEP_SECONDS / 20, "it went on until then"
    assert (whole.status_code, whole.json()["error_type"]) == (503, "DrainingError")
    assert int(whole.headers["retry-after"]) >= 1
    wait_until(lambda: not any(is_alive(pid) for pid in workers), 5, "the workers to be gone")


def test_a_connection_that_is_kept_is_closed_and_no_new_one_is_taken(service: Service) -> None:
    reader = Reader(service, SOON)
    assert reader.begun.wait(20)
    with httpx.Client(trust_env=False) as client:
        assert client.get(service.url + "/readyz").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            client.get(service.url + "/readyz")
    assert reader.wait()[0] == "result"
