"""A client that leaves stops what was done for it."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from src.testing.fake_ollama import FakeOllama
from tests.unit.testing.fake_ollama.waiting import wait_for


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(token_delay=0.01) as server:
        yield server


def ask(**body: object) -> dict[str, object]:
    return {"model": "tiny", "prompt": "the cat", **body}


def test_leaving_a_stream_stops_the_generation(server: FakeOllama) -> None:
    with httpx.stream("POST", f"{server.url}/api/generate", json=ask()) as response:
        lines = response.iter_lines()  # kept: httpx closes the connection with the iterator
        next(lines)
        assert server.active_generations == 1
    assert server.wait_until_idle()
    assert (server.stopped_generations, server.finished_generations) == (1, 0)


def test_leaving_an_event_stream_stops_the_generation(server: FakeOllama) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
    assert server.wait_until_idle()
    assert server.stopped_generations == 1


def test_leaving_before_a_whole_answer_stops_the_generation(server: FakeOllama) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/generate", json=ask(stream=False), timeout=0.1)
    assert server.wait_until_idle()
    assert server.stopped_generations == 1


def test_leaving_the_queue_frees_the_place(server: FakeOllama) -> None:
    server.restart(max_queue=1)
    with httpx.stream("POST", f"{server.url}/api/generate", json=ask()) as response:
        lines = response.iter_lines()
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/api/generate", json=ask(), timeout=0.05)
        wait_for(lambda: server.waiting_requests == 0)
    assert server.wait_until_idle()
    assert server.stopped_generations == 1  # the one in the queue had not begun


def test_leaving_while_the_model_loads_leaves_it_loading(server: FakeOllama) -> None:
    server.pace.load_delay = 0.15
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/generate", json=ask(), timeout=0.05)
    answer = httpx.post(f"{server.url}/api/generate", json=ask(stream=False)).json()
    assert (answer["done"], server.model_loads) == (True, 1)


def test_the_next_in_line_is_served_when_the_first_leaves(server: FakeOllama) -> None:
    statuses = []

    def wait_in_line() -> None:
        short = ask(stream=False, options={"num_predict": 1})
        statuses.append(httpx.post(f"{server.url}/api/generate", json=short).status_code)

    with httpx.stream("POST", f"{server.url}/api/generate", json=ask()) as response:
        lines = response.iter_lines()
        next(lines)
        thread = threading.Thread(target=wait_in_line)
        thread.start()
        wait_for(lambda: server.waiting_requests == 1)
    thread.join()
    assert statuses == [200]
    assert (server.stopped_generations, server.finished_generations) == (1, 1)


def test_stopping_the_server_drops_answers_in_progress(server: FakeOllama) -> None:
    with httpx.stream("POST", f"{server.url}/api/generate", json=ask()) as response:
        lines = response.iter_lines()
        next(lines)
        server.stop()
        with pytest.raises(httpx.TransportError):
            list(lines)
    assert server.active_generations == 0
