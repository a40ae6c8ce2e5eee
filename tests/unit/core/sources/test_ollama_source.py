import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from src.core.errors import (
    EngineError,
    EngineUnavailableError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
    StoreUnavailableError,
)
from src.core.sources import ollama
from src.core.sources.ollama import OllamaSource, full_name
from src.core.sources.ollama_parameters import parameter_billions
from src.testing.fake_ollama import BIGGER, TINY, FakeModel, FakeOllama
from tests.contract.ollama_recordings import recorded_exchanges
from tests.service import free_port, wait_until

QWEN = FakeModel(
    "qwen3:1.7b",
    capabilities=("completion", "tools", "thinking"),
    family="qwen3",
    parameter_count=1_720_574_976,
    quantization="Q4_K_M",
    context_length=40_960,
    weights_size=1_359_000_000,
)


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama([TINY, QWEN], pullable=[FakeModel("small:1b", weights_size=3_000_000), BIGGER]) as running:
        yield running


@pytest.fixture
def source(server: FakeOllama) -> OllamaSource:
    return OllamaSource(server.url, timeout=30.0, verify_ssl=False)


def test_the_list_reads_like_ollama_list_and_says_what_is_known(source: OllamaSource) -> None:
    rows = {row["name"]: row for row in source.list(time.time() + 2 * 86400)}
    assert set(rows) == {"tiny:latest", "qwen3:1.7b"}
    row = rows["qwen3:1.7b"]
    assert (row["size"], row["modified"], row["size_bytes"]) == ("1.4 GB", "2 days ago", QWEN.size)
    assert abs(row["modified_at"] - time.time()) < 600
    assert row["digest"] == f"sha256:{QWEN.digest}"
    assert (row["family"], row["quantization"], row["context_length"]) == ("qwen3", "Q4_K_M", 40_960)
    assert (row["parameters"], row["parameter_count"]) == ("1.7B", 1_720_574_976)
    assert row["capabilities"] == ["completion", "tools", "thinking"]


def test_what_belongs_to_a_digest_is_asked_for_once(source: OllamaSource, server: FakeOllama) -> None:
    ollama._facts = ollama._Facts(most=10)
    for _ in range(3):
        source.list()
    assert len([request for request in server.requests if request.path == "/api/show"]) == 2


def test_a_model_that_cannot_be_shown_stays_in_the_list(source: OllamaSource, monkeypatch: pytest.MonkeyPatch) -> None:
    from ollama import ResponseError

    def vanished(*args: object) -> None:
        raise ResponseError("model 'tiny' not found", 404)

    monkeypatch.setattr(ollama._Facts, "get", vanished)
    rows = {row["name"]: row for row in source.list()}
    assert rows["qwen3:1.7b"]["capabilities"] == []
    assert rows["qwen3:1.7b"]["parameter_count"] == 1_700_000_000


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "library/tiny", "registry.ollama.ai/library/tiny:latest"])
def test_a_model_is_shown_by_any_of_its_names(name: str, source: OllamaSource) -> None:
    facts = source.show(name)
    assert facts["name"] == "tiny:latest"
    assert facts["digest"] == f"sha256:{TINY.digest}"
    assert facts["size_bytes"] == TINY.size
    assert facts["model_info"]["general.parameter_count"] == 144_448
    assert facts["details"]["family"] == "llama"
    assert parameter_billions(facts) == 144_448 / 1e9


def test_a_model_that_ollama_lacks_is_not_found(source: OllamaSource) -> None:
    with pytest.raises(ModelNotFoundError, match="'nowhere' not found in Ollama"):
        source.show("nowhere")


def test_a_pull_counts_bytes_over_all_files_and_returns_the_model(source: OllamaSource, server: FakeOllama) -> None:
    seen: list[tuple[int, int]] = []
    row = source.pull("small:1b", lambda done, total: seen.append((done, total)))
    assert row["name"] == "small:1b"
    assert seen[-1] == (row["size_bytes"], row["size_bytes"])
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert "small:1b" in [known["name"] for known in source.list()]


def test_a_pull_that_its_listener_breaks_off_closes_the_connection_and_goes_on_later(
    source: OllamaSource, server: FakeOllama
) -> None:
    server.pace.pull_delay = 0.01

    def stop(done: int, total: int) -> None:
        if done > 1_000_000:
            raise ConnectionError("stopped")  # of a kind that would be translated, were it the server's

    with pytest.raises(ConnectionError, match="stopped"):
        source.pull(BIGGER.name, stop)
    there = _settled(server)
    assert 0 < there < BIGGER.size
    server.pace.pull_delay = 0.0
    first: list[int] = []
    source.pull(BIGGER.name, lambda done, total: first.append(done))
    assert first[0] >= there


def _settled(server: FakeOllama) -> int:
    """Returns the bytes half pulled, once they grow no more."""
    last = -1

    def still() -> bool:
        nonlocal last
        before, last = last, sum(server._store.partial.values())
        return before == last

    wait_until(still, 30, "the pull to stop")
    time.sleep(0.2)
    assert sum(server._store.partial.values()) == last
    return last


def test_a_pull_of_what_the_registry_lacks_is_not_found(source: OllamaSource) -> None:
    with pytest.raises(ModelNotFoundError, match="'absent' not found in Ollama's registry"):
        source.pull("absent")


def test_a_pull_from_a_registry_that_is_away_is_told(source: OllamaSource) -> None:
    with pytest.raises(EngineUnavailableError, match="cannot reach the registry"):
        source.pull("127.0.0.1:5999/library/tiny")


def test_a_server_that_answers_tells_its_version_and_how_fast(source: OllamaSource) -> None:
    assert source.version() == "0.0.0"
    assert 0 < source.ping()["latency_ms"] < 30_000


@pytest.mark.parametrize("call", ["list", "version", "ping"])
def test_a_server_that_is_away_is_told_in_the_documented_words(call: str) -> None:
    away = OllamaSource(f"http://127.0.0.1:{free_port()}", timeout=5.0, verify_ssl=True)
    with pytest.raises(EngineUnavailableError, match="Failed to connect to Ollama server") as caught:
        getattr(away, call)()
    assert "ollama serve" in caught.value.message
    with pytest.raises(EngineUnavailableError, match="Failed to connect to Ollama server"):
        away.pull("tiny")
    with pytest.raises(EngineUnavailableError, match="Failed to connect to Ollama server"):
        away.show("tiny")


def _answering(answer: bytes) -> tuple[str, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", EngineError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", EngineError),
        (b'HTTP/1.1 500 No\r\ncontent-length: 13\r\n\r\n{"error":"a"}', EngineError),
        (b'HTTP/1.1 400 No\r\ncontent-length: 13\r\n\r\n{"error":"a"}', InvalidInputError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhe", EngineUnavailableError),
        (b"", EngineUnavailableError),
        (b"nonsense", EngineUnavailableError),
    ],
)
def test_what_is_no_ollama_is_told(answer: bytes, error: type[PlatformError]) -> None:
    url, thread = _answering(answer)
    with pytest.raises(error):
        OllamaSource(url, timeout=5.0).list()
    thread.join(10)


def test_a_pull_that_ends_early_is_an_error() -> None:
    body = b'{"status":"pulling manifest"}\n'
    url, thread = _answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    with pytest.raises(EngineError, match="ended early, at 'pulling manifest'"):
        OllamaSource(url, timeout=5.0).pull("tiny")
    thread.join(10)


def test_a_full_disk_of_ollamas_is_told() -> None:
    body = b'{"error":"write /data/ollama/models/blobs/x: no space left on device"}\n'
    url, thread = _answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    with pytest.raises(StoreUnavailableError, match="no room left on Ollama's disk"):
        OllamaSource(url, timeout=5.0).pull("tiny")
    thread.join(10)


def test_recorded_lists_of_a_real_server_are_understood() -> None:
    recorded = [e for e in recorded_exchanges() if e.path == "/api/tags"]
    assert recorded
    for exchange in recorded:
        data = exchange.answer.body.encode()
        url, thread = _answering(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ollama, "_facts_or_none", lambda client, row: None)
            rows = OllamaSource(url, timeout=5.0).list()
        assert {row["digest"] for row in rows} == {
            "sha256:80fe6d27039776a4b1d64b850fd61665a2f52a02a5c7f94857a2880f1ade0947"
        }
        assert {(row["size"], row["parameters"], row["parameter_count"]) for row in rows} == {
            ("590 KB", "144K", 144_000)
        }
        assert all(row["modified_at"] > 1_700_000_000 for row in rows)
        thread.join(10)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("tiny", "tiny:latest"),
        ("qwen3:1.7b", "qwen3:1.7b"),
        ("library/tiny", "tiny:latest"),
        ("someone/tiny", "someone/tiny:latest"),
        ("127.0.0.1:5000/library/tiny", "127.0.0.1:5000/library/tiny:latest"),
        ("hf.co/a/b:Q4_K_M", "hf.co/a/b:Q4_K_M"),
    ],
)
def test_a_name_is_completed_as_ollama_lists_it(name: str, full: str) -> None:
    assert full_name(name) == full


@pytest.mark.parametrize(
    ("facts", "billions"),
    [
        ({"model_info": {"general.parameter_count": 1_720_574_976}, "details": {"parameter_size": "2B"}}, 1.720574976),
        ({"model_info": {}, "details": {"parameter_size": "751.63M"}, "name": "x:7b"}, 0.75163),
        ({"details": {"parameter_size": "1.7B"}}, 1.7),
        ({"details": {"parameter_size": "144K"}}, 0.000144),
        ({"details": {"parameter_size": "1.04T"}}, 1040.0),
        ({"details": {"parameter_size": ""}, "name": "qwen3:1.7b"}, 1.7),
        ({"details": {"parameter_size": "unknown"}, "name": "smollm2:135m-instruct-q4_K_M"}, 0.135),
        ({"name": "mixtral:8x7b"}, 56.0),
        ({"name": "qwen3:30b-a3b"}, 30.0),
        ({"name": "gemma3n:e2b"}, 2.0),
        ({"name": "llama2-7b:latest"}, 7.0),
        ({"name": "someone/llama-3.2-3B:q8_0"}, 3.0),
        ({"name": "hf.co/x/Kimi-K2-1T:Q4"}, 1000.0),
        ({"name": "phi3:mini"}, None),
        ({"name": "model:128k-q4_0"}, None),
        ({"name": "127b.example/model:latest"}, None),
        ({}, None),
    ],
)
def test_parameters_are_counted_stated_or_named_in_this_order(facts: dict[str, object], billions: float | None) -> None:
    assert parameter_billions(facts) == (None if billions is None else pytest.approx(billions))


def test_the_client_is_imported_on_first_use_only() -> None:
    code = "import sys, src.core.sources.ollama\nsys.exit('ollama' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
