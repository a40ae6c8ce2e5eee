"""A server that speaks Ollama and burns CPU time for each token: what passing its answers through costs shows.

`python -m benchmarks.servers.ollama_burner PORT [--ms-per-token 1] [--parallel 8]`. One thread decodes, a token for
each request under way in turn, as one model does under OLLAMA_NUM_PARALLEL; the number of tokens is `num_predict`.
It parses no more of HTTP than its clients write.
"""

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
import uvloop

MODEL = "burner:latest"
DIGEST = "b" * 64
WORDS = (" the", " model", " says", " one", " more", " word")
DETAILS = {"format": "gguf", "family": "llama", "parameter_size": "1B", "quantization_level": "Q4_0"}
_CALIBRATION = range(500)


def work() -> int:
    """Does a little that takes always the same."""
    return sum(range(200))


def works_in(seconds: float) -> int:
    """Returns how much of that this thread does in so much CPU time, when nothing disturbs it."""
    fastest = float("inf")
    for _ in range(40):
        started = time.thread_time()
        for _ in _CALIBRATION:
            work()
        fastest = min(fastest, (time.thread_time() - started) / len(_CALIBRATION))
    return round(seconds / fastest)


@dataclass(eq=False, slots=True)
class Generation:
    """One request's answer as it grows."""

    client: "Client"
    tokens: int
    chat: bool
    streamed: bool
    arrived: int
    made: int = 0

    def line(self, text: str, **end: Any) -> bytes:
        """Returns a line of the answer, without its end."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"response": text}
        return json.dumps(
            {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", **said, "done": bool(end), **end}
        ).encode()

    def end(self) -> dict[str, Any]:
        """Returns what the last line tells."""
        took = time.perf_counter_ns() - self.arrived
        counts = {"prompt_eval_count": 8, "eval_count": self.made}
        return {"done_reason": "length", "total_duration": took, "eval_duration": took, **counts}


class Decoder:
    """Makes tokens, one at a time; between two tokens the loop reads and writes."""

    def __init__(self, seconds: float, parallel: int) -> None:
        # Work, not time: what slows the processor down slows the tokens down.
        self._works, self._parallel = works_in(seconds), parallel
        self._running: deque[Generation] = deque()
        self._waiting: deque[Generation] = deque()
        self._busy = False

    def add(self, generation: Generation) -> None:
        """Takes a request in."""
        self._waiting.append(generation)
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._step)

    def drop(self, client: "Client") -> None:
        """Stops what a client that has left had asked for."""
        for line in (self._running, self._waiting):
            for generation in [one for one in line if one.client is client]:
                line.remove(generation)

    def _step(self) -> None:
        while self._waiting and len(self._running) < self._parallel:
            self._running.append(self._waiting.popleft())
        if not self._running:
            self._busy = False
            return
        generation = self._running.popleft()
        for _ in range(self._works):
            work()
        generation.made += 1
        if generation.streamed:
            generation.client.chunk(generation.line(WORDS[generation.made % len(WORDS)]))
        if generation.made < generation.tokens:
            self._running.append(generation)
        else:
            generation.client.finish(generation)
        asyncio.get_running_loop().call_soon(self._step)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._body = b""
        self._url = ""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._decoder.drop(self)

    def on_url(self, url: bytes) -> None:
        self._url, self._body = url.decode(), b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        asked = json.loads(self._body) if self._body else {}
        if self._url not in ("/api/generate", "/api/chat"):
            self._whole(json.dumps(described(self._url)).encode())
            return
        tokens = asked.get("options", {}).get("num_predict", 64)
        streamed, chat = asked.get("stream", True), self._url == "/api/chat"
        if streamed:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
        self._decoder.add(Generation(self, max(1, tokens), chat, streamed, time.perf_counter_ns()))

    def chunk(self, line: bytes) -> None:
        """Writes a line of a streamed answer."""
        self._transport.write(b"%x\r\n%b\n\r\n" % (len(line) + 1, line))

    def finish(self, generation: Generation) -> None:
        """Writes the end of an answer, or all of it."""
        if generation.streamed:
            self.chunk(generation.line("", **generation.end()))
            self._transport.write(b"0\r\n\r\n")
        else:
            self._whole(generation.line(words(generation.made), **generation.end()))

    def _whole(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)


def words(number: int) -> str:
    """Returns the text of so many tokens."""
    return "".join(WORDS[made % len(WORDS)] for made in range(1, number + 1))


def described(path: str) -> dict[str, Any]:
    """Returns what everything but a generation answers."""
    capabilities = ["completion"]
    model = {"name": MODEL, "model": MODEL, "digest": DIGEST, "size": 1_000_000, "details": DETAILS}
    answers: dict[str, dict[str, Any]] = {
        "/api/version": {"version": "0.0.0"},
        "/api/tags": {"models": [{**model, "capabilities": capabilities}]},
        "/api/show": {"details": DETAILS, "model_info": {}, "capabilities": capabilities, "template": "{{ .Prompt }}"},
        "/api/ps": {"models": [model]},
    }
    return answers.get(path, {"status": "Ollama is running"})


async def serve(port: int, seconds: float, parallel: int) -> None:
    """Serves until the process is told to end."""
    decoder = Decoder(seconds, parallel)
    server = await asyncio.get_running_loop().create_server(partial(Client, decoder), "127.0.0.1", port)
    await server.serve_forever()


def main(arguments: Iterable[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="ollama_burner", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--ms-per-token", type=float, default=1.0, help="CPU time of one token, in milliseconds")
    parser.add_argument("--parallel", type=int, default=8, help="requests that are decoded in turn; others wait")
    given = parser.parse_args(list(arguments) if arguments is not None else None)
    uvloop.run(serve(given.port, given.ms_per_token / 1000, given.parallel))


if __name__ == "__main__":
    main()
