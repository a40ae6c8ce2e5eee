"""The server around the fake models: sockets, threads, state, pace."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import ollama
import pytest

from src.testing.fake_ollama import BIGGER, TINY, FakeModel, FakeOllama, ReceivedRequest
from tests.unit.testing.fake_ollama.waiting import wait_for


def generate(server: FakeOllama, **body: Any) -> httpx.Response:
    request = {"model": "tiny", "prompt": "the cat", "stream": False, **body}
    return httpx.post(f"{server.url}/api/generate", json=request, timeout=30)


def loaded(server: FakeOllama) -> list[str]:
    return [model["name"] for model in httpx.get(f"{server.url}/api/ps").json()["models"]]


def test_two_servers_at_once_share_nothing() -> None:
    with FakeOllama() as first, FakeOllama([FakeModel("other")]) as second:
        assert first.url != second.url
        assert generate(first).status_code == 200
        assert generate(second).status_code == 404
        assert (len(first.requests), loaded(first), loaded(second)) == (1, ["tiny:latest"], [])


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    with FakeOllama(token_cpu=0.0001) as server:
        generate(server, options={"num_predict": 2})
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_requests_are_kept_as_they_came() -> None:
    with FakeOllama() as server:
        generate(server, options={"seed": 1, "no_such_option": 2})
        httpx.get(f"{server.url}/api/tags")
        httpx.post(f"{server.url}/api/show", content=b"{nope")
    body = {
        "model": "tiny",
        "prompt": "the cat",
        "stream": False,
        "options": {"seed": 1, "no_such_option": 2},
    }
    assert server.requests == [
        ReceivedRequest("POST", "/api/generate", body),
        ReceivedRequest("GET", "/api/tags", None),
        ReceivedRequest("POST", "/api/show", b"{nope"),
    ]


def test_token_delay_passes_before_each_line() -> None:
    with FakeOllama(token_delay=0.03) as server:
        body = {"model": "tiny", "prompt": "x", "options": {"num_predict": 5}}
        started = time.monotonic()
        with httpx.stream("POST", f"{server.url}/api/generate", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            assert server.active_generations == 1  # the first line left before the last was there
            assert len(list(lines)) == 5
        assert time.monotonic() - started >= 0.15


def test_token_cpu_is_used_up_while_others_are_answered() -> None:
    with FakeOllama(token_cpu=0.15) as server, ThreadPoolExecutor() as pool:
        before = time.process_time()
        answer = pool.submit(generate, server, options={"num_predict": 2})
        wait_for(lambda: server.active_generations == 1)
        assert httpx.get(f"{server.url}/api/version").status_code == 200
        assert server.active_generations == 1
        assert answer.result().json()["eval_count"] == 2
        assert time.process_time() - before >= 0.3


def test_a_restart_keeps_models_and_address_but_unloads() -> None:
    with FakeOllama() as server:
        url = server.url
        generate(server)
        server.put(FakeModel("other"))
        server.restart()
        assert server.url == url
        assert loaded(server) == []
        assert generate(server, model="other").status_code == 200


def test_a_killed_runner_fails_a_whole_answer() -> None:
    with FakeOllama(token_delay=0.01) as server, ThreadPoolExecutor() as pool:
        answer = pool.submit(generate, server)
        wait_for(lambda: server.active_generations == 1)
        assert server.kill_runner() == 1
        error = {"error": "an error was encountered while running the model: unexpected EOF"}
        assert (answer.result().status_code, answer.result().json()) == (500, error)
        assert server.wait_until_idle()
        assert (server.stopped_generations, loaded(server)) == (0, [])


def test_parallel_requests_run_at_once() -> None:
    with FakeOllama(parallel=3, token_delay=0.02) as server, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(generate, server) for _ in range(4)]
        wait_for(lambda: (server.active_generations, server.waiting_requests) == (3, 1))
        assert [answer.result().status_code for answer in answers] == [200] * 4


def test_load_delay_is_paid_once_and_again_for_another_context() -> None:
    with FakeOllama(load_delay=0.1) as server:
        durations = [
            generate(server, options={"num_ctx": length}).json()["load_duration"] / 1e9 >= 0.1
            for length in (512, 512, 256)
        ]
        assert durations == [True, False, True]
        assert server.model_loads == 2


def test_a_model_past_max_loaded_takes_the_place_of_an_idle_one() -> None:
    with FakeOllama([TINY, FakeModel("other")], max_loaded=1) as server:
        generate(server)
        generate(server, model="other")
        assert loaded(server) == ["other:latest"]


def test_a_model_expires() -> None:
    with FakeOllama() as server:
        generate(server, keep_alive="400ms")
        assert loaded(server) == ["tiny:latest"]
        wait_for(lambda: not loaded(server))


@pytest.mark.parametrize(
    ("keep_alive", "kept"), [(0, []), ("0", []), (-1, ["tiny:latest"]), ("1h30m", ["tiny:latest"])]
)
def test_keep_alive_is_read_as_go_reads_it(keep_alive: Any, kept: list[str]) -> None:
    with FakeOllama() as server:
        generate(server, keep_alive=keep_alive)
        assert loaded(server) == kept


def test_an_interrupted_pull_goes_on_where_it_was() -> None:
    with FakeOllama(pullable=[BIGGER], pull_delay=0.002) as server:
        with httpx.stream("POST", f"{server.url}/api/pull", json={"model": "bigger"}) as response:
            lines = response.iter_lines()
            first = [next(lines) for _ in range(10)]
        with ollama.Client(server.url) as client:
            again = list(client.pull("bigger", stream=True))
    assert '"completed":2359296' in first[-1]
    completed = again[1].completed
    assert completed is not None
    assert completed > 2_359_296
    assert again[-1].status == "success"


def test_a_model_put_anew_has_another_digest() -> None:
    with FakeOllama() as server:
        digests = [httpx.get(f"{server.url}/api/tags").json()["models"][0]["digest"]]
        server.put(replace(TINY, weights_digest="0" * 64))
        digests.append(httpx.get(f"{server.url}/api/tags").json()["models"][0]["digest"])
    assert digests[0] != digests[1]


def test_the_official_client_understands_it() -> None:
    seer = FakeModel("seer", parameter_count=1_700_000_000)
    with FakeOllama([TINY, seer], pullable=[BIGGER]) as server, ollama.Client(server.url) as client:
        assert {model.model for model in client.list().models} == {"tiny:latest", "seer:latest"}
        details = client.show("seer").details
        assert details is not None
        assert details.parameter_size == "1.7B"
        assert client.pull("bigger").status == "success"
        assert client.create("mine", from_="bigger", system="talk").status == "success"
        assert client.copy("mine", "yours").status == "success"
        assert client.delete("mine").status == "success"
        chat = client.chat("yours", [{"role": "user", "content": "hi"}], stream=True)
        assert [part.done for part in chat][-1] is True
        assert [model.name for model in client.ps().models] == ["yours:latest"]
        with pytest.raises(ollama.ResponseError, match="model 'mine' not found"):
            client.generate("mine", "hi")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/api/chat", 405)])
def test_what_is_not_there_is_refused_in_plain_text(method: str, path: str, status: int) -> None:
    with FakeOllama() as server:
        answer = httpx.request(method, server.url + path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")


def test_openai_errors_have_their_own_form() -> None:
    with FakeOllama() as server:
        body = {"model": "nowhere", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "model 'nowhere' not found"
