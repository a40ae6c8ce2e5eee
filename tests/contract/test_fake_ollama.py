"""The fake Ollama against recordings of the real one: the same requests, in order, from a fresh start."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from src.testing.fake_ollama import BIGGER, TINY, FakeOllama
from tests.contract.ollama_recordings import Answer, Exchange, differences, recorded_exchanges

REGISTRY = "127.0.0.1:5000/library"
RACE = "queue full (OLLAMA_MAX_QUEUE=1)"
KILLED = "runner killed mid-generation, streamed"
LINES_BEFORE_THE_KILL = 5

EXCHANGES = recorded_exchanges()


def send(client: httpx.Client, exchange: Exchange, server: FakeOllama) -> Answer:
    """Sends a recorded request; leaves where the recorded client left, kills where the runner was killed."""
    request = client.build_request(
        exchange.method, exchange.path, headers=exchange.headers, content=exchange.body or None
    )
    response = client.send(request, stream=True)
    lines, left = [], False
    for number, line in enumerate(response.iter_lines(), 1):
        lines.append(line)
        if exchange.case == KILLED and number == LINES_BEFORE_THE_KILL:
            server.kill_runner()
        if exchange.answer.client_left and number == exchange.parts:
            left = True
            break
    response.close()
    return Answer(response.status_code, response.headers.get("content-type"), "\n".join(lines), left)


def race(client: httpx.Client, exchanges: list[Exchange], server: FakeOllama) -> dict[int, Answer]:
    """Sends exchanges at once; who is answered is free, so answers are matched by their status."""
    with ThreadPoolExecutor(len(exchanges)) as pool:
        answers = list(pool.map(lambda exchange: send(client, exchange, server), exchanges))
    exchanges = sorted(exchanges, key=lambda exchange: exchange.answer.status)
    answers.sort(key=lambda answer: answer.status)
    return {exchange.n: answer for exchange, answer in zip(exchanges, answers, strict=True)}


@pytest.fixture(scope="module")
def replayed() -> Iterator[dict[int, Answer]]:
    """Every recorded request, answered by the fake."""
    pullable = [replace(model, name=f"{REGISTRY}/{model.name}") for model in (TINY, BIGGER)]
    racing = [exchange for exchange in EXCHANGES if exchange.case == RACE]
    answers: dict[int, Answer] = {}
    with FakeOllama(pullable=pullable, token_delay=0.001, pull_delay=0.001) as server:
        with httpx.Client(base_url=server.url, timeout=10) as client:
            for exchange in EXCHANGES:
                if exchange.n == racing[0].n:
                    # A load that outlasts the arrival of all twelve, as the real one did.
                    server.pace.load_delay = 0.5
                    server.restart(max_queue=1, max_loaded=1)
                    answers |= race(client, racing, server)
                    server.pace.load_delay = 0.0
                if exchange not in racing:
                    answers[exchange.n] = send(client, exchange, server)
        yield answers


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_answers_as_recorded(exchange: Exchange, replayed: dict[int, Answer]) -> None:
    assert differences(exchange.answer, replayed[exchange.n]) == []


def recorded(case: str) -> Answer:
    return next(exchange.answer for exchange in EXCHANGES if exchange.case == case)


def with_json(answer: Answer, **changes: object) -> Answer:
    return replace(answer, body=json.dumps({**json.loads(answer.body), **changes}))


def without_line(answer: Answer, number: int) -> Answer:
    lines = answer.body.splitlines()
    del lines[number]
    return replace(answer, body="\n".join(lines))


GENERATED = recorded("generate")
STREAMED = recorded("generate, streamed")
MISSING = recorded("generate, missing model")
LISTED = recorded("list models")
EVENTS = recorded("OpenAI chat, streamed")
CREATED = recorded("create from another")
MISSING_KEY = {key: value for key, value in json.loads(GENERATED.body).items() if key != "eval_count"}

WRONG = {
    "status": (GENERATED, replace(GENERATED, status=500)),
    "content type": (GENERATED, replace(GENERATED, content_type="application/json")),
    "no content type": (GENERATED, replace(GENERATED, content_type=None)),
    "missing key": (GENERATED, replace(GENERATED, body=json.dumps(MISSING_KEY))),
    "key too many": (GENERATED, with_json(GENERATED, more=1)),
    "number as text": (GENERATED, with_json(GENERATED, eval_count="8")),
    "number as float": (GENERATED, with_json(GENERATED, eval_count=8.0)),
    "true for a number": (GENERATED, with_json(GENERATED, eval_count=True)),
    "type in a list": (GENERATED, with_json(GENERATED, context=[385, "390"])),
    "empty list": (GENERATED, with_json(GENERATED, context=[])),
    "other reason": (GENERATED, with_json(GENERATED, done_reason="stop")),
    "no JSON": (GENERATED, replace(GENERATED, body="{")),
    "error text": (MISSING, with_json(MISSING, error="model 'nowhere' is not found")),
    "key deep in a list": (LISTED, replace(LISTED, body=LISTED.body.replace('"family"', '"kin"'))),
    "too few models": (LISTED, replace(LISTED, body='{"models":[]}')),
    "no last line": (STREAMED, without_line(STREAMED, -1)),
    "no token lines": (STREAMED, replace(STREAMED, body=STREAMED.body.splitlines()[-1])),
    "order of lines": (STREAMED, replace(STREAMED, body="\n".join(reversed(STREAMED.body.splitlines())))),
    "line of another kind": (STREAMED, replace(STREAMED, body=STREAMED.body + '{"error":"x"}\n')),
    "no end of events": (EVENTS, replace(EVENTS, body=EVENTS.body.replace("data: [DONE]\n\n", ""))),
    "one layer less": (CREATED, without_line(CREATED, 1)),
    "client that stayed": (recorded("client leaves mid-stream"), STREAMED),
}


@pytest.mark.parametrize(("answer", "wrong"), WRONG.values(), ids=WRONG)
def test_comparison_notices(answer: Answer, wrong: Answer) -> None:
    assert differences(answer, wrong)


FREE = {
    "text": (GENERATED, with_json(GENERATED, response="another")),
    "counts and times": (GENERATED, with_json(GENERATED, eval_count=9, created_at="2030-01-01T00:00:00Z")),
    "number of tokens": (STREAMED, without_line(STREAMED, 0)),
    "digests": (CREATED, replace(CREATED, body=CREATED.body.replace("5581bfc8", "00000000"))),
}


@pytest.mark.parametrize(("answer", "other"), FREE.values(), ids=FREE)
def test_comparison_lets_differ(answer: Answer, other: Answer) -> None:
    assert differences(answer, other) == []
