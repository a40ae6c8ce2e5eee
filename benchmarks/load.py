"""`python -m benchmarks.load`: puts load on a server; the plan comes as JSON on standard input, figures go out as JSON.

Closed loop: so many connections, each sends its next request when it has its answer. Open loop: requests arrive at
given moments, whatever the server does.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.generator.answers import FORMS, Form
from benchmarks.generator.connection import Answered, Connection
from benchmarks.generator.measured import Finished, closed_figures, open_figures


@dataclass(frozen=True)
class Plan:
    """What to send: the bodies in turn, `concurrency` at a time, or each at its moment of `arrivals` (seconds).

    `form` names how the server answers; with `texts` the answers' texts are returned, by the number of their body.
    """

    url: str
    bodies: list[Any]
    concurrency: int = 1
    seconds: float = 1.0
    warmup: float = 1.0
    arrivals: list[float] | None = None
    form: str = "plain"
    texts: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def requests(self) -> list[bytes]:
        """Returns the bodies as whole requests."""
        parts = urlsplit(self.url)
        lines = {"Host": parts.netloc, "Content-Type": "application/json", **self.headers}
        head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        bodies = [json.dumps(body).encode() for body in self.bodies]
        return [head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]


Connect = Callable[[Answered], Awaitable[Connection]]


async def generate(plan: Plan) -> dict[str, Any]:
    """Puts the load on and returns the figures; raises `ConnectionError` where the server closes a connection."""
    parts, form = urlsplit(plan.url), FORMS[plan.form]
    loop = asyncio.get_running_loop()

    async def connect(answered: Answered) -> Connection:
        made = await loop.create_connection(
            lambda: Connection(answered, form.first_piece), parts.hostname or "127.0.0.1", parts.port or 80
        )
        return made[1]

    reads = plan.form != "plain"
    if plan.arrivals is not None:
        start = time.perf_counter()
        kept = await _open_loop(plan, connect, plan.arrivals)
        return _figures(plan, kept, form, lambda answers: open_figures(answers, start))
    start = time.perf_counter() + plan.warmup
    end = start + plan.seconds
    kept = await _closed_loop(plan, connect, end, keep=reads)
    figures = _figures(plan, kept, form, lambda answers: closed_figures(answers, start, end, plan.concurrency))
    return {"concurrency": plan.concurrency, "seconds": plan.seconds, **figures}


Kept = tuple[Finished, bytes | None]


async def _closed_loop(plan: Plan, connect: Connect, end: float, *, keep: bool) -> list[Kept]:
    requests, kept, turn = plan.requests(), list[Kept](), 0
    ended = asyncio.get_running_loop().create_future()
    left = plan.concurrency

    def send(connection: Connection) -> None:
        nonlocal turn
        connection.send(turn % len(requests), requests[turn % len(requests)])
        turn += 1

    def answered(connection: Connection, now: float) -> None:
        nonlocal left
        if connection.lost is not None:
            if not ended.done():
                ended.set_exception(connection.lost)
            return
        kept.append(_kept(connection, now, keep=keep))
        if now < end:
            send(connection)
            return
        connection.leave()
        left -= 1
        if not left and not ended.done():
            ended.set_result(None)

    connections = [await connect(answered) for _ in range(plan.concurrency)]
    for connection in connections:
        send(connection)
    try:
        await ended
    finally:
        for connection in connections:
            connection.leave()
    return kept


async def _open_loop(plan: Plan, connect: Connect, arrivals: Sequence[float]) -> list[Kept]:
    requests, kept = plan.requests(), list[Kept]()
    started = time.perf_counter()

    async def one(number: int, moment: float) -> None:
        await asyncio.sleep(started + moment - time.perf_counter())
        whole: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        connection = await connect(lambda _, now: None if whole.done() else whole.set_result(now))
        connection.send(number, requests[number])
        now = await whole
        if connection.lost is not None:
            raise connection.lost
        kept.append(_kept(connection, now, keep=True))
        connection.leave()

    await asyncio.gather(*(one(number, moment) for number, moment in enumerate(arrivals)))
    return kept


def _kept(connection: Connection, now: float, *, keep: bool) -> Kept:
    finished = Finished(connection.request, connection.sent, connection.first, now, connection.is_good)
    return finished, connection.body if keep else None


def _figures(
    plan: Plan, kept: Sequence[Kept], form: Form, figures: Callable[[Sequence[Finished]], dict[str, Any]]
) -> dict[str, Any]:
    """Reads the answers only now: while there was load, that would have taken from the server's processor."""
    for finished, body in kept:
        if body is not None and finished.is_good:
            finished.said = form.read(body)
    found = figures([finished for finished, _ in kept])
    bad = next((body for finished, body in kept if body is not None and not finished.is_good), None)
    if bad is not None:
        found["first_error"] = bad[:2000].decode("utf-8", "replace")
    if plan.texts:
        found["texts"] = [[one.request, one.said.text, one.said.tokens] for one, _ in kept if one.said is not None]
    return found


def main() -> None:
    """Reads a plan, carries it out, writes the figures."""
    print(json.dumps(uvloop.run(generate(Plan(**json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
