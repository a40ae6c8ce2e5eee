"""OllamaEngine.astream against the fake server that the recordings prove, and a real one where OLLAMA_HOST is set."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from src.core.errors import (
    EngineUnavailableError,
    InvalidInputError,
    ModelNotFoundError,
    QueueFullError,
    WorkerDiedError,
)
from src.core.registry.versions import RegisteredVersion
from src.inference.engines.base import Delta
from src.inference.engines.ollama import OllamaEngine
from src.inference.types import ServableModel
from src.testing.fake_ollama import FakeModel, FakeOllama
from tests.service import free_port

pytestmark = pytest.mark.anyio
TINY = ServableModel("tiny", "tiny")
MESSAGES = [{"role": "user", "content": "hi"}]
PICTURE = [{"role": "user", "content": "What is this?", "images": [b"\x89PNG1"]}]
THINKER = FakeModel("thinker", capabilities=("completion", "thinking"))
SEER = FakeModel("seer", capabilities=("completion", "vision"))


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The service runs on uvloop, the Python door on asyncio's own loop."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    """A server of the test's own."""
    with FakeOllama([FakeModel("tiny"), THINKER, SEER], pullable=[FakeModel("pulled")], parallel=8) as fake:
        yield fake


@asynccontextmanager
async def engine_for(server: FakeOllama | str) -> AsyncIterator[OllamaEngine]:
    engine = OllamaEngine({"api_base": server if isinstance(server, str) else server.url})
    try:
        yield engine
    finally:
        await engine.aclose()


def registered(name: str, ollama_name: str, **tags: str) -> ServableModel:
    version = RegisteredVersion(
        name=name,
        version="3",
        source=f"ollama://library/{ollama_name}",
        tags={"ollama_model_name": ollama_name, **tags},
    )
    return ServableModel(name, name, registered=version)


async def streamed(
    engine: OllamaEngine, model: ServableModel = TINY, inputs: Any = "Hello", **options: Any
) -> tuple[list[str], Any]:
    """Returns the texts of the deltas and the raw answer."""
    *deltas, raw = [piece async for piece in engine.astream(model, inputs, options)]
    assert all(isinstance(delta, Delta) for delta in deltas)
    return [delta.text for delta in deltas], raw


def paths(server: FakeOllama) -> list[str]:
    return [request.path for request in server.requests]


@pytest.mark.parametrize(
    ("model", "inputs", "options"),
    [
        ("tiny", "Hello", {}),
        ("tiny", "你好，請解釋", {"max_new_tokens": 5, "num_ctx": 256}),
        ("tiny", "Hello", {"format": "json", "stop": ["zzz"], "num_beams": 4}),
        ("tiny", "the cat " * 400, {"num_ctx": 128, "max_new_tokens": 2}),
        ("tiny", MESSAGES, {"system": "be short", "temperature": 0.0, "seed": 3}),
        ("thinker", "Hello", {"max_new_tokens": 12}),
        ("thinker", MESSAGES, {"max_new_tokens": 12}),
        ("thinker", MESSAGES, {"max_new_tokens": 12, "think": False}),
        ("thinker", MESSAGES, {"max_new_tokens": 2}),
        ("seer", PICTURE, {"max_new_tokens": 9}),
    ],
    ids=[
        "prompt",
        "short",
        "warned",
        "cut",
        "chat",
        "thinks",
        "thinks-in-chat",
        "does-not-think",
        "only-thinks",
        "sees",
    ],
)
async def test_the_deltas_make_up_the_answer_and_the_end_is_what_infer_returns(
    server: FakeOllama, model: str, inputs: Any, options: dict[str, Any]
) -> None:
    asked = registered("mine", model, model_digest="sha256:" + "0" * 64)
    async with engine_for(server) as engine:
        deltas, raw = await streamed(engine, asked, inputs, **options)
        whole = await engine.ainfer(asked, inputs, options)
    assert "".join(deltas) == raw["response"]
    assert raw == whole
    assert any("has moved" in warning for warning in raw["warnings"])
    asked_for = [request for request in server.requests if request.path in ("/api/generate", "/api/chat")]
    assert [request.body["stream"] for request in asked_for] == [True, False]


async def test_a_delta_is_there_before_the_next_token_is_made(server: FakeOllama) -> None:
    server.pace.token_delay, server.pace.answer_tokens = 0.1, 500
    async with engine_for(server) as engine, aclosing(engine.astream(TINY, "Hello", {"num_predict": 500})) as pieces:
        assert (await asyncio.wait_for(anext(pieces), 25)).text


async def test_several_sequences_come_whole(server: FakeOllama) -> None:
    async with engine_for(server) as engine:
        deltas, raw = await streamed(engine, num_return_sequences=3, seed=1)
    assert deltas == []
    assert len(set(raw["response"])) == 3


async def test_leaving_stops_ollamas_generation(server: FakeOllama) -> None:
    server.pace.token_delay = 0.02
    async with engine_for(server) as engine:
        async with aclosing(engine.astream(TINY, "Hello", {"max_new_tokens": 500})) as pieces:
            await anext(pieces)
        assert await asyncio.to_thread(server.wait_until_idle)
    assert (server.stopped_generations, server.finished_generations) == (1, 0)


async def test_cancelling_stops_ollamas_generation(server: FakeOllama) -> None:
    server.pace.token_delay = 0.02
    arrived = asyncio.Event()

    async def follow(engine: OllamaEngine) -> None:
        async with aclosing(engine.astream(TINY, "Hello", {"max_new_tokens": 500})) as pieces:
            async for _ in pieces:
                arrived.set()

    async with engine_for(server) as engine:
        following = asyncio.ensure_future(follow(engine))
        await arrived.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert await asyncio.to_thread(server.wait_until_idle)
    assert server.stopped_generations == 1


async def test_fifty_that_leave_free_the_server_for_the_next(server: FakeOllama) -> None:
    server.pace.token_delay = 0.02
    async with engine_for(server) as engine:

        async def leave() -> None:
            async with aclosing(engine.astream(TINY, "Hello", {"max_new_tokens": 200})) as pieces:
                await anext(pieces)

        await asyncio.gather(*(leave() for _ in range(50)))
        assert await asyncio.to_thread(server.wait_until_idle)
        deltas, _ = await streamed(engine, max_new_tokens=3)
    assert len(deltas) == 3
    assert server.stopped_generations == 50


async def test_a_runner_that_dies_midway_is_a_retryable_error_after_the_deltas(server: FakeOllama) -> None:
    server.pace.token_delay = 0.02
    async with engine_for(server) as engine:
        pieces = engine.astream(TINY, "Hello", {"max_new_tokens": 500})
        assert isinstance(await anext(pieces), Delta)
        await asyncio.to_thread(server.kill_runner)
        with pytest.raises(WorkerDiedError, match="unexpected EOF") as caught:
            async for _ in pieces:
                pass
        assert caught.value.retryable
        server.pace.token_delay = 0.0
        assert len((await streamed(engine, max_new_tokens=4))[0]) == 4


async def test_a_server_that_goes_away_midway_is_a_retryable_error(server: FakeOllama) -> None:
    server.pace.token_delay = 0.02
    async with engine_for(server) as engine:
        pieces = engine.astream(TINY, "Hello", {"max_new_tokens": 500})
        assert isinstance(await anext(pieces), Delta)
        await asyncio.to_thread(server.stop)
        with pytest.raises(WorkerDiedError, match=r"The connection to Ollama server at .* broke") as caught:
            async for _ in pieces:
                pass
        assert caught.value.retryable


async def test_a_server_that_was_restarted_meanwhile_is_asked_as_if_nothing_had_been(server: FakeOllama) -> None:
    async with engine_for(server) as engine:
        await streamed(engine)
        await asyncio.to_thread(server.restart)
        deltas, raw = await streamed(engine)
        assert raw == await engine.ainfer(TINY, "Hello", {})
    assert deltas


async def test_a_full_queue_is_told_before_anything_comes() -> None:
    with FakeOllama(parallel=1, max_queue=0, token_delay=0.02) as server:
        async with engine_for(server) as engine:
            pieces = engine.astream(TINY, "Hello", {"max_new_tokens": 500})
            await anext(pieces)
            with pytest.raises(QueueFullError):
                await streamed(engine)
            await pieces.aclose()


async def test_nobody_there() -> None:
    async with engine_for(f"http://127.0.0.1:{free_port()}") as engine:
        with pytest.raises(EngineUnavailableError, match="Failed to connect to Ollama server"):
            await streamed(engine)


async def test_a_registered_model_that_ollama_lacks_is_pulled(server: FakeOllama) -> None:
    async with engine_for(server) as engine:
        deltas, raw = await streamed(engine, registered("mine", "pulled"))
    assert "".join(deltas) == raw["response"]
    assert paths(server).count("/api/pull") == 1


async def test_a_model_deleted_since_the_last_look_is_pulled_again_and_named_as_it_is_now(server: FakeOllama) -> None:
    server.put(FakeModel("pulled", weights_digest="1" * 64))
    async with engine_for(server) as engine:
        asked = registered("mine", "pulled")
        _, before = await streamed(engine, asked)
        server.remove("pulled")
        deltas, raw = await streamed(engine, asked)
        assert raw == await engine.ainfer(asked, "Hello", {})
    assert deltas
    assert raw["digest"] != before["digest"]
    assert paths(server).count("/api/pull") == 1


async def test_a_model_that_nobody_has_is_named(server: FakeOllama) -> None:
    async with engine_for(server) as engine:
        with pytest.raises(ModelNotFoundError, match="ollama pull absent"):
            await streamed(engine, ServableModel("absent", "absent"))


async def test_pictures_go_to_models_that_can_see_only(server: FakeOllama) -> None:
    async with engine_for(server) as engine:
        with pytest.raises(InvalidInputError, match="lacks the capability 'vision'"):
            await streamed(engine, TINY, PICTURE)
    assert "/api/chat" not in paths(server)


async def test_a_request_costs_one_call_once_the_model_is_known(server: FakeOllama) -> None:
    async with engine_for(server) as engine:
        await streamed(engine)
        before = len(server.requests)
        for _ in range(5):
            await engine.ainfer(TINY, "Hello", {})
            await streamed(engine)
    assert set(paths(server)[before:]) == {"/api/generate"}
    assert len(server.requests) == before + 10


def test_each_loop_has_connections_of_its_own(server: FakeOllama) -> None:
    engine = OllamaEngine({"api_base": server.url})
    answers: list[Any] = []

    async def ask() -> None:
        for _ in range(5):
            answers.append((await streamed(engine))[1])
            answers.append(await engine.ainfer(TINY, "Hello", {}))
        await engine.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(ask())
    assert len(answers) == 40
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.skipif(not os.environ.get("OLLAMA_HOST"), reason="no real Ollama: OLLAMA_HOST is not set")
async def test_against_a_real_server() -> None:
    engine = OllamaEngine()
    try:
        await engine.ping()
        names = await engine.listed() or ["tiny"]
        deltas, raw = await streamed(engine, ServableModel(names[0], names[0]), "Say hi.", max_new_tokens=8)
        assert "".join(deltas) == raw["response"]
        assert raw["metadata"]["tokens"] > 0
    finally:
        await engine.aclose()
