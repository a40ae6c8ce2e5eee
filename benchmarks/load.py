"""A closed-loop load generator: so many connections, each sends its next request when it has its answer.

It runs in a process of its own and writes one JSON object to standard output. It speaks just enough
HTTP/1.1 to cost little beside the servers that it measures.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import uvloop


@dataclass(frozen=True)
class Load:
    """What was measured; latencies in milliseconds."""

    concurrency: int
    seconds: float
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


class _Client(asyncio.Protocol):
    """One connection; sends its next request when it has its answer."""

    def __init__(self, request: bytes, start: float, end: float, latencies: list[float], errors: list[int]) -> None:
        self._request, self._start, self._end = request, start, end
        self._latencies, self._errors = latencies, errors
        self._buffer = b""
        self._sent = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head >= 0:
            place = buffer.lower().find(b"content-length: ", 0, head) + 16
            if len(buffer) >= head + 4 + int(buffer[place : buffer.find(b"\r\n", place)]):
                self._buffer = b""
                if self._sent >= self._start:
                    self._latencies.append(time.perf_counter() - self._sent)
                    self._errors[0] += not buffer.startswith(b"HTTP/1.1 200")
                self._next()
                return
        self._buffer = buffer

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        self._sent = time.perf_counter()
        if self._sent < self._end:
            self._transport.write(self._request)  # type: ignore[attr-defined]
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()


async def generate(url: str, body: bytes, concurrency: int, seconds: float, warmup: float) -> Load:
    """Posts `body` to `url` from `concurrency` connections."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    latencies: list[float] = []
    errors = [0]
    start = time.perf_counter() + warmup
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(request, start, start + seconds, latencies, errors), host, port))[
            1
        ]
        for _ in range(concurrency)
    ]
    await asyncio.gather(*(client.done for client in clients))
    ordered = sorted(latencies)
    return Load(
        concurrency=concurrency,
        seconds=seconds,
        requests=len(ordered),
        errors=errors[0],
        requests_per_second=len(ordered) / seconds,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
    )


def main() -> None:
    """`python -m benchmarks.load URL BODY CONCURRENCY SECONDS WARMUP`."""
    url, body, concurrency, seconds, warmup = sys.argv[1:6]
    load = uvloop.run(generate(url, body.encode(), int(concurrency), float(seconds), float(warmup)))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
