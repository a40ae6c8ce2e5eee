"""W5: answers of an Ollama-speaking server passed through, against the same call made to that server directly."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.bench import Bench, Unit
from benchmarks.comparing import Pair, interleaved
from benchmarks.peers.catalogue import Peer, serving_task
from benchmarks.serving import Server, free_port, ours, serving, worker_environment

MODEL = "burner"
PROMPT = "Why is the sky blue?"
COSTS = (1.0, 0.3, 5.0)
"""Milliseconds of CPU time that a token costs."""
LENGTHS = (64, 8)
CONCURRENCY = 8
RATE, FIRST = "requests_per_second", "first_piece_p50_ms"
_WAVES = 2  # in a window, at least: it begins and ends with one


@dataclass(frozen=True)
class Door:
    """A way to the same answers; `form` and `streamed` name them for the load generator, whole and in pieces."""

    server: Server
    path: str
    form: str
    streamed: str

    def body(self, tokens: int, *, stream: bool = False) -> dict[str, Any]:
        """Returns a request for an answer of so many tokens."""
        if self.form == "ours":
            options = {"max_new_tokens": tokens, **({"stream": True} if stream else {})}
            data = {"inputs": PROMPT}
            return {
                "task": "text-generation",
                "engine": "ollama",
                "model_name": MODEL,
                "data": data,
                "options": options,
            }
        if self.form == "ollama":
            return {"model": MODEL, "prompt": PROMPT, "stream": stream, "options": {"num_predict": tokens}}
        messages = [{"role": "user", "content": PROMPT}]
        usage = {"stream_options": {"include_usage": True}} if stream else {}
        return {"model": MODEL, "messages": messages, "max_tokens": tokens, "stream": stream, **usage}

    def load(self, tokens: int, *, stream: bool = False, **plan: Any) -> dict[str, Any]:
        """Puts load on it; raises `RuntimeError` where an answer has another number of tokens than was asked for."""
        form = self.streamed if stream else self.form
        figures = self.server.load(self.path, [self.body(tokens, stream=stream)], form=form, **plan)
        if figures["tokens"] != tokens * figures["requests"]:
            raise RuntimeError(f"{self.path} made {figures['tokens']} tokens in {figures['requests']} of {tokens}")
        return figures


@contextmanager
def burner(milliseconds: float, parallel: int = CONCURRENCY) -> Iterator[Server]:
    """Runs the server whose tokens cost CPU time until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.servers.ollama_burner", str(port)]
    command += ["--ms-per-token", str(milliseconds), "--parallel", str(parallel)]
    with serving(command, port, "/api/version", worker_environment()) as server:
        yield server


def units(bench: Bench) -> list[Unit]:
    """Returns the service before tokens of each cost, and the peers before those of 1 ms."""
    return [
        *(Unit(_name(cost), _seconds(bench, cost), partial(_ours, bench, cost)) for cost in COSTS),
        *(
            Unit(peer.title, _seconds(bench.shorter(), 1.0) + peer.start_seconds, partial(_peer, bench.shorter(), peer))
            for peer in serving_task(bench, "chat")
        ),
    ]


def _name(cost: float) -> str:
    return "ours" if cost == 1.0 else f"ours, {cost:g} ms a token"


def _seconds(bench: Bench, cost: float) -> float:
    once = [_window(bench, length, cost) + _warmup(length, cost) + 0.5 for length in LENGTHS]
    return 2 * bench.rounds * (sum(once) + bench.seconds + 1) + 5


def _ours(bench: Bench, cost: float) -> dict[str, Any]:
    bench = bench if cost == 1.0 else bench.shorter()
    with burner(cost) as direct, ours(bench.fresh("w5"), OLLAMA_HOST=direct.url) as service:
        version = {"local_model_name": MODEL, "task": "text-generation", "stage": "production"}
        answer = service.post("/models/register_ollama", version)
        if answer.get("success") is False:
            raise RuntimeError(f"the model could not be registered: {answer['error']}")
        return _beside(bench, Door(service, "/inference/infer", "ours", "ours_streamed"), direct, cost)


def _peer(bench: Bench, peer: Peer) -> dict[str, Any]:
    with burner(1.0) as direct, peer.running("chat", bench, OLLAMA_API_BASE=direct.url) as server:
        door = Door(server, "/v1/chat/completions", "openai", "openai_streamed")
        return {"version": peer.version, **_beside(bench, door, direct, 1.0)}


def _beside(bench: Bench, door: Door, server: Server, cost: float) -> dict[str, Any]:
    """Measures answers of each length and the first token, beside the same asked of the server directly."""
    direct = Door(server, "/api/generate", "ollama", "ollama_streamed")
    for way in (door, direct):
        way.load(1, seconds=0.2, warmup=0.2)

    def pair(length: int, *, stream: bool = False) -> Pair:
        plan: dict[str, Any] = {"concurrency": 1, "seconds": bench.seconds, "warmup": 0.5}
        if not stream:
            window, warmup = _window(bench, length, cost), _warmup(length, cost)
            plan = {"concurrency": CONCURRENCY, "seconds": window, "warmup": warmup}
        return Pair(
            lambda: door.load(length, stream=stream, **plan),
            FIRST if stream else RATE,
            lambda: direct.load(length, stream=stream, **plan),
            is_time=stream,
        )

    pairs = {f"{length} tokens": pair(length) for length in LENGTHS}
    return interleaved({**pairs, "first token": pair(min(LENGTHS), stream=True)}, bench.rounds)


def _window(bench: Bench, length: int, cost: float) -> float:
    return max(bench.seconds, _WAVES * _wave(length, cost))


def _warmup(length: int, cost: float) -> float:
    return 0.5 + _wave(length, cost)


def _wave(length: int, cost: float) -> float:
    """Returns the seconds in which all callers have an answer: they end together."""
    return CONCURRENCY * length * cost / 1000
