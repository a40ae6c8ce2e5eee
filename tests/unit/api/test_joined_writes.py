"""Answers leave in one write where they can, whole, and in order."""

import asyncio
import socket
from typing import Any

import httpx
import pytest
import uvicorn

from src.api.joined_writes import JoiningProtocol, JoiningTransport
from tests.service import free_port
from tests.waiting import until

pytestmark = pytest.mark.anyio

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Wire:
    """A transport that notes what happens to it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def write(self, data: bytes) -> None:
        self.seen.append(data)

    def close(self) -> None:
        self.seen.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.seen

    def get_extra_info(self, name: str) -> str:
        return name

    def pause_reading(self) -> None:
        self.seen.append("paused")


def joined() -> tuple[Wire, JoiningTransport]:
    wire = Wire()
    return wire, JoiningTransport(wire)  # type: ignore[arg-type]


async def test_a_head_waits_for_its_body() -> None:
    wire, transport = joined()
    transport.write(LENGTH)
    assert wire.seen == []
    transport.write(b"body")
    transport.write(b"more")
    assert wire.seen == [LENGTH + b"body", b"more"]


@pytest.mark.parametrize("data", [CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n", b"anything"])
async def test_what_may_stay_alone_for_long_leaves_at_once(data: bytes) -> None:
    wire, transport = joined()
    transport.write(data)
    assert wire.seen == [data]


async def test_nothing_is_left_behind() -> None:
    for end in ("flush", "close"):
        wire, transport = joined()
        transport.write(LENGTH)
        getattr(transport, end)()
        assert wire.seen[0] == LENGTH
        transport.flush()
        assert wire.seen.count(LENGTH) == 1


async def test_the_rest_is_the_transports_own() -> None:
    wire, transport = joined()
    transport.pause_reading()
    assert (wire.seen, transport.get_extra_info("peername"), transport.is_closing()) == (["paused"], "peername", False)


async def application(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path == "/broken":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        raise RuntimeError("broken on purpose")
    if path == "/empty":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        return
    length = [] if path == "/chunked" else [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for part in (b"HTTP/", b"1.1 +", b""):
        await send({"type": "http.response.body", "body": part, "more_body": part != b""})


async def test_every_kind_of_answer_arrives_over_one_connection() -> None:
    port = free_port()
    config = uvicorn.Config(
        application, port=port, http=JoiningProtocol, lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            for _ in range(3):
                assert (await client.get("/whole")).text == "HTTP/1.1 +"
                assert (await client.get("/chunked")).text == "HTTP/1.1 +"
                head = await client.head("/whole")
                assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
                assert (await client.get("/empty")).status_code == 204
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/broken")
        assert await asyncio.to_thread(pipelined, port) == 2
    finally:
        server.should_exit = True
        await serving


def pipelined(port: int) -> int:
    """Sends two requests at once; returns how many whole answers come."""
    ask = b"GET /whole HTTP/1.1\r\nhost: a\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(ask + ask)
        found = b""
        while found.count(b"\r\n\r\nHTTP/1.1 +") < 2 and (data := connection.recv(65536)):
            found += data
    return found.count(b"\r\n\r\nHTTP/1.1 +")
