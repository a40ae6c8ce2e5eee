"""Limits per caller, asked of a real service: 429 in time, and nobody else is disturbed."""

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from src.testing.fake_ollama import FakeOllama
from tests.service import Service, running_service, wait_until

PATH = "/inference/infer"
CLIENT, OTHER = "203.0.113.7", "203.0.113.8"
BURST = 5


def infer_body(tokens: int = 1) -> dict[str, Any]:
    options = {"num_predict": tokens}
    data = {"inputs": "hello"}
    return {"task": "text-generation", "engine": "ollama", "model_name": "tiny", "data": data, "options": options}


def ask(service: Service, address: str = CLIENT, path: str = PATH, body: Any = None) -> httpx.Response:
    """Asks as a proxy would for a client at an address."""
    return service.post(path, infer_body() if body is None else body, headers={"X-Forwarded-For": address})


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(parallel=8, token_delay=0.05, answer_tokens=1200) as server:
        yield server


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama) -> Iterator[Service]:
    """A service that takes five requests at once of a caller, and one more every second."""
    with running_service(
        tmp_path_factory.mktemp("limited") / "data",
        OLLAMA_HOST=ollama.url,
        AIML_ALLOW_ANONYMOUS="1",
        AIML_LIMITS__REQUESTS_PER_MINUTE="60",
        AIML_LIMITS__BURST=str(BURST),
        AIML_LIMITS__TRUSTED_PROXIES="127.0.0.1",
    ) as service:
        yield service


def test_a_burst_is_served_the_next_one_is_told_to_wait_and_is_served_then(limited: Service) -> None:
    assert ask(limited, "192.0.2.1").status_code == 200  # whoever comes first waits for Ollama's first answer
    started = time.monotonic()
    answers = [ask(limited) for _ in range(BURST + 3)]
    took = time.monotonic() - started
    # Exactly so many, unless the machine was so slow that another one came in.
    served = [answer.status_code for answer in answers].count(200)
    assert BURST <= served <= BURST + int(took)
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    failure = refused.json()
    assert (failure["error_type"], failure["retryable"], failure["success"]) == ("RateLimitedError", True, False)
    assert failure["details"] == {
        "limit": 60, "setting": "limits.requests_per_minute", "window_seconds": 60, "burst": BURST, "retry_after": 1,
    }  # fmt: skip
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-request-id"] == failure["request_id"]
    assert ask(limited, OTHER).status_code == 200
    time.sleep(float(refused.headers["retry-after"]))
    assert ask(limited).status_code == 200


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/inference/health", "192.0.2.10"),
        ("/inference/stats", "192.0.2.11"),
        ("/livez", "192.0.2.12"),
        ("/readyz", "192.0.2.13"),
        ("/metrics", "192.0.2.14"),
    ],
)
def test_reading_is_free(limited: Service, path: str, address: str) -> None:
    for _ in range(BURST + 5):
        assert limited.get(path, headers={"X-Forwarded-For": address}).status_code == 200
    assert ask(limited, address).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PATH),
        ("POST", "/inference/cache/clear"),
        ("POST", "/models/register_ollama"),
        ("DELETE", "/models/registered_in_mlflow/none/1"),
    ],
)
def test_writes_are_counted_together(limited: Service, method: str, path: str) -> None:
    headers = {"X-Forwarded-For": "192.0.2.3", "Content-Type": "application/json"}
    with httpx.Client(base_url=limited.url, trust_env=False, timeout=60) as client:
        answers = [client.request(method, path, headers=headers, content=b"{}") for _ in range(4 * BURST)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= BURST
    assert {answer.json()["error_type"] for answer in refused} == {"RateLimitedError"}


def test_the_document_tells_it_of_every_route_that_is_limited(limited: Service) -> None:
    paths = limited.get("/openapi.json").json()["paths"]
    writes = [(method, path) for path, entry in paths.items() for method in entry if method != "get"]
    assert len(writes) > 15
    assert [(method, path) for method, path in writes if "429" not in paths[path][method]["responses"]] == []


def test_refusals_are_counted(limited: Service) -> None:
    def refused() -> float:
        lines = limited.get("/metrics").text.splitlines()
        counts = [line.split() for line in lines if line.startswith('aiml_limited_requests_total{limit="rate"}')]
        return float(counts[0][1]) if counts else 0.0

    before, statuses = refused(), [ask(limited, "192.0.2.4", body={}).status_code for _ in range(4 * BURST)]
    assert refused() - before == statuses.count(429) > 0


@contextmanager
def unanswered(service: Service, address: str) -> Iterator[socket.socket]:
    """Sends a request whose answer takes a minute, and leaves without it at the end of the block."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    body = json.dumps(infer_body(1200)).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def test_a_client_that_leaves_mid_request_frees_its_place(tmp_path: Path, ollama: FakeOllama) -> None:
    with running_service(
        tmp_path / "data",
        OLLAMA_HOST=ollama.url,
        AIML_ALLOW_ANONYMOUS="1",
        AIML_LIMITS__CONCURRENT="2",
        AIML_LIMITS__TRUSTED_PROXIES="127.0.0.0/8",
    ) as service:
        with unanswered(service, CLIENT):
            with unanswered(service, CLIENT):
                wait_until(lambda: ollama.active_generations == 2, 30, "both to generate")
                refused = ask(service)
                assert refused.status_code == 429
                assert refused.json()["details"]["setting"] == "limits.concurrent"
                assert refused.headers["retry-after"] == "1"
                assert ask(service, OTHER).status_code == 200
                assert service.get("/inference/stats", headers={"X-Forwarded-For": CLIENT}).status_code == 200
            wait_until(lambda: ollama.active_generations == 1, 30, "one to stop")
            wait_until(lambda: ask(service).status_code == 200, 30, "the place to be free")
        wait_until(lambda: ollama.active_generations == 0, 30, "the other one to stop")
        for _ in range(5):  # one after the other, any number
            assert ask(service).status_code == 200


def test_a_key_is_one_caller_and_a_forwarded_address_none_without_a_believed_proxy(tmp_path: Path) -> None:
    with running_service(
        tmp_path / "data", AIML_API_KEYS="one,two", AIML_LIMITS__REQUESTS_PER_MINUTE="1", AIML_LIMITS__BURST="2"
    ) as service:

        def status(key: str, address: str) -> int:
            headers = {"X-API-Key": key, "X-Forwarded-For": address}
            return service.post(PATH, {}, headers=headers).status_code

        assert [status("one", f"192.0.2.{number}") for number in range(4)] == [422, 422, 429, 429]
        assert status("two", CLIENT) == 422
        assert status("wrong", CLIENT) == 401


def test_without_a_believed_proxy_a_forwarded_address_is_no_other_caller(tmp_path: Path) -> None:
    with running_service(
        tmp_path / "data", AIML_ALLOW_ANONYMOUS="1", AIML_LIMITS__REQUESTS_PER_MINUTE="1", AIML_LIMITS__BURST="2"
    ) as service:
        assert [ask(service, f"192.0.2.{number}", body={}).status_code for number in range(3)] == [422, 422, 429]


def test_what_a_proxy_of_this_machine_passes_on_needs_a_key_of_its_own(tmp_path: Path) -> None:
    with running_service(tmp_path / "data") as service:
        assert ask(service, body={}).status_code == 401
        assert ask(service, "127.0.0.1", body={}).status_code == 422


@pytest.mark.slow
def test_a_flood_of_addresses_takes_no_more_memory(limited: Service, figure: Callable[[str], None]) -> None:
    def flood(network: int) -> None:
        """Asks from 10,000 addresses, a hundred requests at a time down one connection."""
        host, _, port = limited.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection, connection.makefile("rb") as lines:
            for start in range(0, 10_000, 100):
                asked = [
                    f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    f"X-Forwarded-For: 10.{network}.{number >> 8}.{number & 255}\r\nContent-Length: 2\r\n\r\n[]"
                    for number in range(start, start + 100)
                ]
                connection.sendall("".join(asked).encode())
                assert [_status(lines) for _ in asked] == [422] * 100

    wait_until(lambda: _registry(limited) == "ok", 120, "what the service imports behind its start")
    sizes = []
    for network in range(3):
        flood(network)
        sizes.append(_resident(limited.process.pid))
    grown = min(later - before for before, later in itertools.pairwise(sizes))
    figure(f"10,000 more addresses: {grown / 1e6:+.1f} MB")
    assert grown < 1_000_000  # remembered, they take 2.2 MB


def _registry(service: Service) -> Any:
    return service.get("/inference/health").json()["dependencies"]["mlflow"]["status"]


def _status(lines: Any) -> int:
    """Reads one answer; returns its status."""
    status, length = int(lines.readline().split()[1]), 0
    while (line := lines.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    lines.read(length)
    return status


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
