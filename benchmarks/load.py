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


async def generate(url: str, body: bytes, concurrency: int, seconds: float, warmup: float) -> Load:
    """Posts `body` to `url` from `concurrency` connections."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    latencies: list[float] = []
    errors = 0
    start = time.perf_counter() + warmup
    end = start + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(host, port)
        while (sent := time.perf_counter()) < end:
            writer.write(request)
            header = await reader.readuntil(b"\r\n\r\n")
            length = int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if sent >= start:
                latencies.append(time.perf_counter() - sent)
                errors += not header.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(client() for _ in range(concurrency)))
    ordered = sorted(latencies)
    return Load(
        concurrency=concurrency,
        seconds=seconds,
        requests=len(ordered),
        errors=errors,
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
