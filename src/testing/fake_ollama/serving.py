"""A thread that serves one application on one socket, and ends without waiting for its clients."""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

T = TypeVar("T")

START_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 600
DATE_SECONDS = 1.0


class ServingThread:
    """Serves from its construction, which returns once the socket answers, until `end`."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._server = _Server(config)
        port = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name=f"fake-ollama-{port}", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(START_SECONDS):
            raise RuntimeError("the fake Ollama did not start")

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function in the server's thread; returns what it returns."""
        result: Future[T] = Future()
        self._server.loop.call_soon_threadsafe(lambda: result.set_result(function()))
        return result.result(START_SECONDS)

    def end(self) -> None:
        """Closes every connection and joins the thread."""
        self._server.should_exit = True
        self._server.loop.call_soon_threadsafe(self._server.told_to_end.set)
        self._thread.join()


class _Server(uvicorn.Server):
    """Uvicorn's server, ended by a call from another thread and at once.

    Its own end looks for the wish ten times a second and waits for answers in progress; a stopped Ollama
    drops them, and tests start many servers.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.told_to_end = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.told_to_end.wait(), DATE_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)
        for server in self.servers:
            await server.wait_closed()
