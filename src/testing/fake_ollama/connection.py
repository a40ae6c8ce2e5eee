"""The connection behind a request: what came over it is kept, and work ends when the client leaves."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it arrived; `body` is the parsed JSON, the bytes of what is no JSON, or None."""

    method: str
    path: str
    body: Any


class ClientWatch:
    """Runs the application for as long as its client is there, streaming or not."""

    def __init__(self, app: ASGIApp, requests: list[ReceivedRequest]) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole_body(receive)
        if body is None:
            return
        self._requests.append(ReceivedRequest(scope["method"], scope["path"], _parsed(body)))
        answered = asyncio.Event()

        async def send_on(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()

        answering = asyncio.ensure_future(self._app(scope, _once(body), send_on))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # The server reports a complete answer as a client that left, too.
            if not answering.done() and not answered.is_set():
                answering.cancel()
            await asyncio.wait({answering})
        finally:
            leaving.cancel()
            answering.cancel()
        if not answering.cancelled():
            answering.result()


async def _whole_body(receive: Receive) -> bytes | None:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _once(body: bytes) -> Receive:
    """Returns a `receive` that has the body already, and then never says anything."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        silence: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await silence

    return receive


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body
