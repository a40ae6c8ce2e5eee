import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.generator.answers import FORMS, Said
from benchmarks.generator.measured import Finished, closed_figures, open_figures
from benchmarks.load import Plan, generate

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SAID = {"choices": [{"text": "one two"}], "usage": {"completion_tokens": 2}}

Answer = Callable[[dict[str, Any]], list[bytes]]


def whole(value: Any, status: bytes = b"200 OK") -> list[bytes]:
    body = json.dumps(value).encode()
    return [b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)]


def chunked(*parts: bytes) -> list[bytes]:
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    return [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]


async def serving(answer: Answer, plan: dict[str, Any], *, pause: float = 0.0) -> tuple[dict[str, Any], list[Any]]:
    """Runs a plan against a server that sends the pieces of an answer one by one; returns figures and bodies."""
    seen: list[Any] = []

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                seen.append(json.loads(await reader.readexactly(size)))
                for piece in answer(seen[-1]):
                    writer.write(piece)
                    await asyncio.sleep(pause)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            left.append(asyncio.create_task(writer.wait_closed()))
            if len(left) == clients:
                all_left.set()

    all_left, clients = asyncio.Event(), plan.get("concurrency", len(plan["bodies"]))
    left: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        figures = await generate(Plan(url=f"http://127.0.0.1:{port}/infer", **plan))
        await all_left.wait()
        await asyncio.gather(*left)
    return figures, seen


def test_a_closed_loop_sends_the_bodies_in_turn_and_counts_tokens() -> None:
    plan = {"bodies": [{"n": 0}, {"n": 1}], "concurrency": 3, "seconds": 0.3, "warmup": 0.1, "form": "openai"}
    figures, seen = asyncio.run(serving(lambda body: whole(SAID), plan, pause=0.005))
    assert figures["requests"] > 3
    assert figures["tokens"] == 2 * figures["requests"]
    assert figures["tokens_per_second"] == pytest.approx(2 * figures["requests_per_second"])
    assert [body["n"] for body in seen[:4]] == [0, 1, 0, 1]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_an_answer_in_chunks_is_read_however_it_is_cut(pieces: int) -> None:
    def answer(body: dict[str, Any]) -> list[bytes]:
        raw = b"".join(chunked(json.dumps(SAID)[:10].encode(), json.dumps(SAID)[10:].encode()))
        return [raw[place : place + pieces] for place in range(0, len(raw), pieces)]

    plan = {"bodies": [{}], "arrivals": [0.0], "form": "openai", "texts": True}
    figures, _ = asyncio.run(serving(answer, plan))
    assert figures["texts"] == [[0, "one two", 2]]


def test_the_first_piece_of_a_stream_is_timed_apart_from_its_end() -> None:
    events = [
        b"event: delta\ndata: " + json.dumps({"text": "one "}).encode() + b"\n\n",
        b"event: delta\ndata: " + json.dumps({"text": "two"}).encode() + b"\n\n",
        b"event: result\ndata: "
        + json.dumps({"result": {"generated_text": "one two"}, "usage": {"completion_tokens": 2}}).encode()
        + b"\n\n",
    ]
    plan = {"bodies": [{}], "arrivals": [0.0], "form": "ours_streamed"}
    figures, _ = asyncio.run(serving(lambda body: chunked(*events), plan, pause=0.05))
    assert figures["tokens"] == 2
    assert figures["first_piece_p50_ms"] < figures["p50_ms"] - 50


def test_failures_are_counted_and_the_first_one_is_told() -> None:
    plan = {"bodies": [{}], "arrivals": [0.0, 0.0], "form": "openai"} | {"bodies": [{}, {}]}
    figures, _ = asyncio.run(serving(lambda body: whole({"error": "full"}, b"503 Busy"), plan))
    assert figures["errors"] == 2
    assert "full" in figures["first_error"]


def test_requests_arrive_at_their_moments() -> None:
    plan = {"bodies": [{"n": n} for n in range(3)], "arrivals": [0.0, 0.1, 0.2], "form": "openai"}
    figures, seen = asyncio.run(serving(lambda body: whole(SAID), plan, pause=0.15))
    assert [body["n"] for body in seen] == [0, 1, 2]
    assert figures["requests_per_second"] <= 3 / 0.2


def test_a_server_that_closes_a_connection_is_an_error() -> None:
    async def closing() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await generate(Plan(url=f"http://127.0.0.1:{port}/", bodies=[{}], seconds=0.1))

    with pytest.raises(OSError):
        asyncio.run(closing())


@pytest.mark.parametrize("start", [0.95, 1.01, 1.03, 1.5])
def test_bursts_count_alike_wherever_the_window_begins(start: float) -> None:
    ends = [second + 0.005 * row for second in range(1, 9) for row in range(16)]
    answers = [Finished(0, end - 1, None, end, True) for end in ends]
    assert closed_figures(answers, start, start + 4, 16)["requests_per_second"] == pytest.approx(16)


def test_bursts_of_several_sizes_count_no_more_than_there_were() -> None:
    # Ten callers and six take turns, a second each: sixteen answers in two seconds.
    ends = [(second, 10 if second % 2 else 6) for second in range(1, 20)]
    answers = [Finished(0, end - 2, None, end, True) for end, size in ends for _ in range(size)]
    assert closed_figures(answers, 2.5, 5.5, 16)["requests_per_second"] == pytest.approx(8)


def test_answers_that_come_one_by_one_are_counted_as_they_come() -> None:
    answers = [Finished(0, 0.1 * place, None, 0.1 * place + 0.05, True) for place in range(100)]
    figures = closed_figures(answers, 1.0, 9.0, 1)
    assert figures["requests_per_second"] == pytest.approx(10)
    assert figures["requests"] == 80


def test_requests_longer_than_the_window_are_all_counted() -> None:
    answers = [Finished(0, 0.0, None, 5.0, True), Finished(0, 0.0, None, 5.001, True)]
    assert closed_figures(answers, 0.5, 1.5, 2)["requests_per_second"] == pytest.approx(2 / 5.001)


def test_an_open_loop_is_counted_from_the_first_arrival_to_the_last_answer() -> None:
    answers = [Finished(0, 10.0, 10.1, 11.0, True, Said("a", 30)), Finished(1, 11.5, 11.8, 14.0, True, Said("b", 10))]
    figures = open_figures(answers, 10.0)
    assert figures["tokens_per_second"] == pytest.approx(10)
    assert figures["first_piece_p99_ms"] == pytest.approx(300)


USAGE = {"usage": {"completion_tokens": 2}}


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\r\n\r\n" for value in values)


STREAMED = events({"choices": [{"text": "one "}]}, {"choices": [{"text": "two"}], **USAGE})
DELTAS = [{"choices": [{"delta": {"content": text}}]} for text in ("one ", "two")]
CHAT = events(*DELTAS, {"choices": [], **USAGE}) + b"data: [DONE]\r\n\r\n"


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("ours", b'{"result": {"generated_text": "one two", "metadata": {"tokens": 2}}}'),
        ("openai", json.dumps(SAID).encode()),
        ("openai", b'{"choices":[{"message":{"content":"one two"}}],"usage":{"completion_tokens":2}}'),
        ("openai_streamed", STREAMED),
        ("openai_streamed", CHAT),
        ("ollama", b'{"message":{"content":"one two"},"done":true,"eval_count":2}'),
        ("ollama_streamed", b'{"response":"one ","done":false}\n{"response":"two","done":true,"eval_count":2}\n'),
    ],
)
def test_every_form_of_answer_says_its_text_and_its_tokens(form: str, body: bytes) -> None:
    assert FORMS[form].read(body) == Said("one two", 2)


@pytest.mark.parametrize(
    ("form", "empty", "first"),
    [
        ("openai_streamed", b'data: {"choices":[{"delta":{"content":""}}]}', b'{"delta":{"content":"o"}}'),
        ("ollama_streamed", b'{"response":""}', b'{"response":"o"}'),
    ],
)
def test_an_empty_piece_is_no_first_piece(form: str, empty: bytes, first: bytes) -> None:
    pattern = FORMS[form].first_piece
    assert pattern is not None
    assert not pattern.search(empty)
    assert pattern.search(empty + first)


def test_a_stream_whose_pieces_are_not_its_answer_is_refused() -> None:
    body = b'event: delta\ndata: {"text": "one"}\n\nevent: result\ndata: {"result": {"generated_text": "two"}}\n\n'
    with pytest.raises(ValueError, match="not the answer"):
        FORMS["ours_streamed"].read(body)
