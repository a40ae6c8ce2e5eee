"""The fake lakeFS against recordings of the real one: the same requests, in order, from a fresh start."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from src.testing.fake_lakefs import FakeLakefs
from tests.contract.lakefs_recordings import (
    Answer,
    Exchange,
    Ids,
    differences,
    recorded_exchanges,
    with_numbered_ids,
)

RECORDED = recorded_exchanges()
WRONG_SECRET = "wrong secret"


def headers(exchange: Exchange, server: FakeLakefs) -> dict[str, str]:
    """Puts credentials back in where the recorder cut them."""
    given = dict(exchange.headers)
    if "authorization" in given:
        secret = "wrong" if exchange.case == WRONG_SECRET else server.secret_access_key
        token = base64.b64encode(f"{server.access_key_id}:{secret}".encode()).decode()
        given["authorization"] = f"Basic {token}"
    return given


def send(connection: HTTPConnection, exchange: Exchange, server: FakeLakefs, translate: Callable[[str], str]) -> Answer:
    """Sends a recorded request, with the fake's own ids in it."""
    body = exchange.body
    if exchange.headers.get("content-type") == "application/json":
        body = translate(body.decode()).encode()
    connection.request(exchange.method, translate(exchange.path), body or None, headers(exchange, server))
    response = connection.getresponse()
    received = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, received, response.read())


@pytest.fixture(scope="module")
def replayed() -> dict[int, tuple[Answer, Answer]]:
    """Every recorded answer and the fake's, ids numbered on both sides."""
    recorded_ids, ids = Ids(), Ids()
    answers = {}
    with FakeLakefs() as server:
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        for exchange in RECORDED:
            got = send(connection, exchange, server, lambda text: ids.translated(text, recorded_ids))
            recorded = with_numbered_ids(exchange.answer, recorded_ids)
            answers[exchange.n] = recorded, with_numbered_ids(got, ids)
        connection.close()
    return answers


@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_answers_as_recorded(exchange: Exchange, replayed: dict[int, tuple[Answer, Answer]]) -> None:
    assert differences(*replayed[exchange.n]) == []


def recorded(n: int) -> Answer:
    return next(exchange.answer for exchange in RECORDED if exchange.n == n)


def with_json(answer: Answer, **changes: object) -> Answer:
    return replace(answer, body=json.dumps({**json.loads(answer.body), **changes}).encode())


def with_header(answer: Answer, name: str, value: str | None) -> Answer:
    kept = {known: text for known, text in answer.headers.items() if known != name}
    return replace(answer, headers=kept if value is None else {**kept, name: value})


def with_body(answer: Answer, old: bytes, new: bytes) -> Answer:
    assert old in answer.body
    return replace(answer, body=answer.body.replace(old, new))


UPLOADED, LISTED, GOT, PART, PAST_END = (recorded(n) for n in (15, 26, 32, 34, 35))
CREATED, CONFLICT, NO_CHANGES, HEAD = (recorded(n) for n in (40, 55, 14, 36))

WRONG = {
    "status": (CONFLICT, replace(CONFLICT, status=400)),
    "content type": (UPLOADED, with_header(UPLOADED, "content-type", "text/plain")),
    "missing header": (GOT, with_header(GOT, "etag", None)),
    "header too many": (GOT, with_header(GOT, "accept-ranges", "bytes")),
    "other etag": (GOT, with_header(GOT, "etag", '"00"')),
    "other range": (PART, with_header(PART, "content-range", "bytes 0-15/10240")),
    "range of the refusal": (PAST_END, with_header(PAST_END, "content-range", "bytes */1")),
    "other length": (HEAD, with_header(HEAD, "content-length", "0")),
    "error text": (NO_CHANGES, with_json(NO_CHANGES, message="no changes")),
    "missing key": (UPLOADED, with_body(UPLOADED, b'"metadata":{},', b"")),
    "key too many": (UPLOADED, with_json(UPLOADED, more=1)),
    "other size": (UPLOADED, with_json(UPLOADED, size_bytes=44)),
    "time as text": (UPLOADED, with_json(UPLOADED, mtime="1795247662")),
    "other kind of address": (UPLOADED, with_json(UPLOADED, physical_address="s3://bucket/key")),
    "true for a number": (LISTED, with_body(LISTED, b'"results":4', b'"results":true')),
    "other path": (LISTED, with_body(LISTED, b"tiny/config.json", b"tiny/config.jsoo")),
    "too few objects": (LISTED, with_json(LISTED, results=[])),
    "no JSON": (UPLOADED, replace(UPLOADED, body=b"{")),
    "other bytes": (GOT, with_body(GOT, b"64", b"65")),
    "other id": (CREATED, replace(CREATED, body=b"id 1")),
}


@pytest.mark.parametrize(("answer", "wrong"), WRONG.values(), ids=WRONG)
def test_comparison_notices(answer: Answer, wrong: Answer) -> None:
    assert differences(answer, answer) == []
    assert differences(answer, wrong)


FREE = {
    "times": (UPLOADED, with_json(UPLOADED, mtime=1)),
    "address": (UPLOADED, with_body(UPLOADED, b"dc0ksbhksduapomiv3t0", b"00000000000000000000")),
    "length of JSON": (UPLOADED, with_header(UPLOADED, "content-length", "9")),
    "time of change": (GOT, with_header(GOT, "last-modified", "Sat, 21 Nov 2026 08:00:00 GMT")),
    "request id": (UPLOADED, with_header(UPLOADED, "x-request-id", None)),
}


@pytest.mark.parametrize(("answer", "other"), FREE.values(), ids=FREE)
def test_comparison_lets_differ(answer: Answer, other: Answer) -> None:
    assert differences(answer, other) == []


def test_ids_are_compared_by_the_order_in_which_they_appear() -> None:
    one, other = Ids(), Ids()
    assert one.numbered("a" * 64 + " " + "b" * 64) == other.numbered("c" * 64 + " " + "d" * 64)
    assert one.numbered("a" * 64) != other.numbered("d" * 64)


def test_ids_in_a_request_are_translated_also_when_short() -> None:
    recorded_ids, ids = Ids(["a" * 64]), Ids(["b" * 64])
    assert ids.translated(f"/commits/{'a' * 64}", recorded_ids) == f"/commits/{'b' * 64}"
    assert ids.translated(f"/commits/{'a' * 12}", recorded_ids) == f"/commits/{'b' * 12}"
    assert ids.translated(f"/commits/{'0' * 64}", recorded_ids) == f"/commits/{'0' * 64}"
