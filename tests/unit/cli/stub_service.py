"""A stub of the service over a real socket: it answers what a test tells it to, and keeps what it was asked."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.service import free_port

Answer = Any
"""JSON to answer with; a `Response`; or a function of the request that gives one of them."""


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON; None for a body without bytes."""
        return json.loads(self.body) if self.body else None


@dataclass
class Stub:
    """The stub service."""

    url: str = ""
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, method: str, path: str, answer: Answer) -> None:
        """Says what a route answers."""
        self.answers[method, path] = answer

    async def handle(self, request: Request) -> Response:
        """Keeps the request and answers it."""
        body = await request.body()
        path = request.scope["raw_path"].decode()
        self.asked.append(Asked(request.method, path, dict(request.query_params), dict(request.headers), body))
        answer = self.answers.get((request.method, path), failure(404, "NotFoundError", f"there is no {path} here"))
        answer = answer(request) if callable(answer) and not isinstance(answer, Response) else answer
        return answer if isinstance(answer, Response) else JSONResponse(answer)


def failure(status: int, kind: str, sentence: str) -> Response:
    """Returns a failure as the service words it."""
    return JSONResponse({"success": False, "error": sentence, "error_type": kind, "retryable": False}, status)


def events(*states: dict[str, Any]) -> Response:
    """Returns a stream of a job's states, with the comments and other fields that such a stream may have."""
    lines = [f"event: {state['status']}\ndata: {json.dumps(state)}\n\n" for state in states]
    return StreamingResponse(iter([": ping\n\n", *lines]), media_type="text/event-stream")


def job(status: str = "running", **more: Any) -> dict[str, Any]:
    """Returns a job as the service tells it."""
    facts = {"id": "j1", "kind": "download", "bytes_done": 0, "bytes_total": 0, "bytes_per_second": 0.0}
    times = {"eta_seconds": None, "created_at": 1795262906.7, "finished_at": None}
    return {**facts, **times, "status": status, "result": None, "error": None, "error_type": None, **more}


@contextmanager
def serving() -> Iterator[Stub]:
    """Runs a stub until the block ends."""
    stub = Stub()
    routes = [Route("/{path:path}", stub.handle, methods=["GET", "POST", "DELETE"])]
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    stub.url = f"http://127.0.0.1:{port}"
    yield stub
    server.should_exit = True
    thread.join()
