"""Clients that leave in the middle of their streams: how soon the worker rests, and what is left of its speed."""

import json
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.machine import cpu_seconds, family
from benchmarks.serving import Server

CLIENTS = 50
NEW_TOKENS = 800
_WATCHED = 2.0
"""Seconds that clients wait at most for their first piece: some have none, where fewer streams run at a time."""
_LOOK = 0.1
_PATIENCE = 30.0
_REST = 0.02
"""A worker rests that uses less than this part of a core."""


def abandoned(
    server: Server,
    path: str,
    prompts: Sequence[Any],
    body: Callable[[Any, bool], Any],
    speed: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Returns seconds until the workers rest after all clients have left, and the speed before and after."""
    before = speed()
    asked = [{**prompts[number % len(prompts)], "new_tokens": NEW_TOKENS} for number in range(CLIENTS)]
    streaming = _leave(server, path, [body(prompt, True) for prompt in asked])
    idle_after = _until_rest(server)
    after = speed()
    return {
        "clients": CLIENTS,
        "clients_with_a_first_piece": streaming,
        "idle_after_seconds": idle_after,
        "before": before,
        "after": after,
        "speed_after_to_before": after["tokens_per_second"] / before["tokens_per_second"],
    }


def _leave(server: Server, path: str, bodies: Sequence[Any]) -> int:
    """Opens a stream for each body, waits for their first pieces, and closes them all; returns how many had one."""
    host, _, port = urlsplit(server.url).netloc.partition(":")
    waiting, got = selectors.DefaultSelector(), set[int]()
    clients = []
    for number, body in enumerate(bodies):
        client = socket.create_connection((host, int(port)))
        raw = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        waiting.register(client, selectors.EVENT_READ, number)
        clients.append(client)
    end = time.perf_counter() + _WATCHED
    while len(got) < len(clients) and (left := end - time.perf_counter()) > 0:
        for key, _ in waiting.select(left):
            if b"event: delta" in key.fileobj.recv(1 << 16):  # type: ignore[union-attr]
                got.add(key.data)
    for client in clients:
        client.close()
    waiting.close()
    return len(got)


def _until_rest(server: Server) -> float:
    """Returns the seconds until all processes behind the gateway rest; raises `RuntimeError` where one has died."""
    workers = family(server.process.pid)[1:]
    started = time.perf_counter()
    try:
        while (passed := time.perf_counter() - started) < _PATIENCE:
            used = sum(map(cpu_seconds, workers))
            time.sleep(_LOOK)
            if sum(map(cpu_seconds, workers)) - used <= _LOOK * _REST:
                return passed
    except FileNotFoundError as exc:
        raise RuntimeError("a worker died when the clients of its streams left") from exc
    raise RuntimeError(f"the workers do not rest within {_PATIENCE:g} s after their clients have left")
