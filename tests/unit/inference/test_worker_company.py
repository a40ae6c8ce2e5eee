"""Requests that meet in a worker: batches, steps, pieces of answers, priorities."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy
import pytest

from src.core.errors import EngineError, InferenceTimeoutError, InvalidInputError
from src.inference.engines.base import BaseEngine
from src.inference.workers.launching import WorkerProcess, start_fresh
from src.inference.workers.process import ProcessWorker
from src.inference.workers.thread import ThreadWorker
from tests.light_engines import ObedientHandler
from tests.social_engines import BatchEngine, StepEngine, TalkingEngine, social_spec
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def launch(connection: socket.socket) -> WorkerProcess:
    return start_fresh(connection)


@asynccontextmanager
async def running(engine: type[BaseEngine], **batching: Any) -> AsyncIterator[ProcessWorker]:
    worker = ProcessWorker(launch, start_timeout=60, load_timeout=60, **batching)
    await worker.load(social_spec(engine), lambda error: None)
    try:
        yield worker
    finally:
        await worker.unload()


@pytest.fixture(scope="module")
async def batches() -> AsyncIterator[ProcessWorker]:
    """A worker that takes up to three together."""
    async with running(BatchEngine, max_batch_size=3) as worker:
        yield worker


@pytest.fixture(scope="module")
async def steps() -> AsyncIterator[ProcessWorker]:
    """A worker of which up to three count together."""
    async with running(StepEngine, max_batch_size=3) as worker:
        yield worker


async def behind(worker: ProcessWorker, *requests: tuple[dict[str, Any], dict[str, Any]], **more: Any) -> list[Any]:
    """Asks while the worker is busy; returns the answers' responses, or the errors."""
    busy = asyncio.create_task(worker.infer({"do": "busy", "seconds": 0.4, "alone": True}, {}))
    await asyncio.sleep(0.1)
    tasks = [asyncio.create_task(worker.infer(data, options, **more)) for data, options in requests]
    answers = await asyncio.gather(busy, *tasks, return_exceptions=True)
    return [answer if isinstance(answer, Exception) else answer.result["response"] for answer in answers[1:]]


# ---------------------------------------------------------------------- batches


async def test_those_that_wait_with_equal_key_and_options_go_together(batches: ProcessWorker) -> None:
    answers = await behind(
        batches,
        ({"do": "a", "shape": 1}, {}),
        ({"do": "b", "shape": 2}, {}),
        ({"do": "c", "shape": 1}, {}),
        ({"do": "d", "shape": 1}, {"top_k": 3}),
        ({"do": "e"}, {}),
        ({"do": "f", "shape": 2}, {}),
    )
    assert answers == [["a", "c"], ["b", "f"], ["a", "c"], ["d"], ["e"], ["b", "f"]]


async def test_a_batch_is_no_larger_than_it_may_be(batches: ProcessWorker) -> None:
    answers = await behind(batches, *[({"do": str(n), "shape": 1}, {}) for n in range(5)])
    assert answers == [["0", "1", "2"]] * 3 + [["3", "4"]] * 2


async def test_large_inputs_that_come_while_it_computes_are_all_there_when_it_is_done() -> None:
    picture = numpy.zeros(150_000, numpy.uint8)  # a socket holds one of them
    names = [str(n) for n in range(8)]
    async with running(BatchEngine, max_batch_size=8) as worker:
        answers = await behind(worker, *[({"do": name, "shape": 1, "picture": picture}, {}) for name in names])
    assert answers == [names] * 8


async def test_one_with_bad_input_fails_alone(batches: ProcessWorker) -> None:
    answers = await behind(batches, ({"do": "a", "shape": 1}, {}), ({"do": "bad", "shape": 1}, {}), ({"shape": 1}, {}))
    assert answers[0] == ["a", "bad"]
    assert isinstance(answers[1], InvalidInputError)
    assert isinstance(answers[2], InvalidInputError)
    assert "missing field 'do'" in answers[2].message


async def test_a_batch_that_breaks_fails_as_a_whole_and_the_worker_goes_on(batches: ProcessWorker) -> None:
    answers = await behind(batches, ({"do": "a", "shape": 1}, {}), ({"do": "break", "shape": 1}, {}))
    assert [type(answer) for answer in answers] == [EngineError, EngineError]
    assert (await batches.infer({"do": "a", "shape": 1}, {})).result["response"] == ["a"]


async def test_one_whose_caller_leaves_while_it_waits_is_not_computed(batches: ProcessWorker) -> None:
    busy = asyncio.create_task(batches.infer({"do": "busy", "seconds": 0.3}, {}))
    await asyncio.sleep(0.1)
    stays = asyncio.create_task(batches.infer({"do": "stays", "shape": 1}, {}))
    leaves = asyncio.create_task(batches.infer({"do": "leaves", "shape": 1}, {}))
    await asyncio.sleep(0.05)
    leaves.cancel()
    await busy
    assert (await stays).result["response"] == ["stays"]


async def test_a_batch_waits_for_more_where_it_is_told_to() -> None:
    async with running(BatchEngine, max_batch_size=3, max_wait_ms=5000) as worker:
        first = asyncio.create_task(worker.infer({"do": "a", "shape": 1}, {}))
        await asyncio.sleep(0.1)
        others = [asyncio.create_task(worker.infer({"do": name, "shape": 1}, {})) for name in "bc"]
        async with asyncio.timeout(4):
            answers = await asyncio.gather(first, *others)
    assert [answer.result["response"] for answer in answers] == [["a", "b", "c"]] * 3


async def test_callers_who_ask_again_and_again_come_together() -> None:
    sizes: list[int] = []

    async def caller(worker: ProcessWorker, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            answer = await worker.infer({"do": "it", "shape": "s", "seconds": 0.4, "together_seconds": 0.4}, {})
            sizes.append(len(answer.result["response"]))

    async with running(BatchEngine, max_batch_size=8) as worker:
        end = asyncio.get_running_loop().time() + 6
        first = asyncio.create_task(caller(worker, end))
        await asyncio.sleep(0.1)  # the first one is alone inside, and would be for good
        await asyncio.gather(first, *(caller(worker, end) for _ in range(3)))
    assert sizes.count(4) > len(sizes) / 2, sizes


async def test_those_who_do_not_come_back_are_not_waited_for_long() -> None:
    async with running(BatchEngine, max_batch_size=8) as worker:
        request = {"do": "it", "shape": "s", "seconds": 1.0, "together_seconds": 1.0}
        await asyncio.gather(*(worker.infer(request, {}) for _ in range(4)))
        started = asyncio.get_running_loop().time()
        answer = await worker.infer({"do": "it", "shape": "s"}, {})
    assert answer.result["response"] == ["it"]
    assert asyncio.get_running_loop().time() - started < 2, "30 ms are waited for the next one at most"


async def test_an_idle_model_adds_no_wait_where_none_is_set(batches: ProcessWorker) -> None:
    assert (await batches.infer({"do": "a", "shape": 1}, {})).result["response"] == ["a"]


# ---------------------------------------------------------------------- priorities


@pytest.fixture(params=["process", "thread"])
async def one_by_one(request: pytest.FixtureRequest) -> AsyncIterator[ProcessWorker | ThreadWorker]:
    """A worker that takes one after the other."""
    if request.param == "process":
        async with running(BatchEngine, max_batch_size=1) as worker:
            yield worker
    else:
        thread = ThreadWorker(BatchEngine, ObedientHandler)
        await thread.load(social_spec(BatchEngine), lambda error: None)
        yield thread
        await thread.unload()


async def order(worker: ProcessWorker | ThreadWorker, *asked: tuple[str, int], pause: float = 0.0) -> list[str]:
    """Asks by name and priority while the worker is busy; returns the names as they were answered."""
    answered: list[str] = []

    async def ask(name: str, priority: int) -> None:
        await worker.infer({"do": name}, {}, priority=priority)
        answered.append(name)

    tasks = [asyncio.create_task(worker.infer({"do": "busy", "seconds": 1.0 + pause}, {}))]
    await asyncio.sleep(0.1)
    for name, priority in asked:
        tasks.append(asyncio.create_task(ask(name, priority)))  # type: ignore[arg-type]
        await asyncio.sleep(pause)
    await asyncio.gather(*tasks)
    return answered


async def test_a_higher_priority_goes_first_and_equal_ones_in_their_order(
    one_by_one: ProcessWorker | ThreadWorker,
) -> None:
    asked = [("a", 0), ("low", -5), ("b", 0), ("high", 10), ("c", 0)]
    assert await order(one_by_one, *asked) == ["high", "a", "b", "c", "low"]


async def test_who_waits_long_enough_is_not_passed_for_ever(one_by_one: ProcessWorker | ThreadWorker) -> None:
    assert await order(one_by_one, ("patient", 0), ("pushy", 1), pause=1.5) == ["patient", "pushy"]


# ---------------------------------------------------------------------- step by step


async def test_requests_join_those_inside_and_leave_when_they_are_done(steps: ProcessWorker) -> None:
    long = asyncio.create_task(steps.infer({"do": "long", "tokens": 100}, {}))
    await asyncio.sleep(0.1)
    short = await steps.infer({"do": "short", "tokens": 2}, {})
    assert not long.done()
    assert short.result == {"response": "0 1 ", "crowd": 2}
    assert (await long).result["response"].split() == [str(n) for n in range(100)]


async def test_who_goes_step_by_step_says_how_many_may_be_inside(steps: ProcessWorker, batches: ProcessWorker) -> None:
    assert (steps.report.at_once, batches.report.at_once) == (3, 1)


async def test_no_more_are_inside_than_may_be(steps: ProcessWorker) -> None:
    answers = await asyncio.gather(*(steps.infer({"do": str(n), "tokens": 10}, {}) for n in range(8)))
    assert max(answer.result["crowd"] for answer in answers) == 3


async def test_who_asks_again_at_once_misses_no_step() -> None:
    """Steps of 100 ms: who is answered after one and asks again is in the next one, not in the one after that."""
    loop = asyncio.get_running_loop()
    async with running(StepEngine, max_batch_size=3) as worker:
        others = asyncio.create_task(worker.infer({"do": "long", "tokens": 1000, "pause": 0.1}, {}))
        await worker.infer({"do": "first", "tokens": 1}, {})
        tries: list[float] = []
        while len(tries) < 10 and min(tries, default=2.0) > 1.5:  # a busy machine may miss the moment
            started = loop.time()
            for _ in range(10):
                await worker.infer({"do": "again", "tokens": 1}, {})
            tries.append(loop.time() - started)
        others.cancel()
    assert min(tries) <= 1.5, f"ten steps, and never one between two of them: {tries}"


async def test_one_that_has_to_go_alone_waits_for_those_inside_and_is_not_passed(steps: ProcessWorker) -> None:
    inside = asyncio.create_task(steps.infer({"do": "inside", "tokens": 40}, {}))
    await asyncio.sleep(0.1)
    alone = asyncio.create_task(steps.infer({"do": "alone", "alone": True}, {}))
    await asyncio.sleep(0.01)
    later = asyncio.create_task(steps.infer({"do": "later", "tokens": 1}, {}))
    done = [name async for name in _as_done({"inside": inside, "alone": alone, "later": later})]
    assert done == ["inside", "alone", "later"]


async def _as_done(tasks: dict[str, asyncio.Task[Any]]) -> AsyncIterator[str]:
    left = dict(tasks)
    while left:
        await asyncio.wait(left.values(), return_when=asyncio.FIRST_COMPLETED)
        for name in [name for name, task in left.items() if task.done()]:
            del left[name]
            yield name


async def test_bad_input_is_refused_at_the_door_and_disturbs_nobody(steps: ProcessWorker) -> None:
    inside = asyncio.create_task(steps.infer({"do": "inside", "tokens": 20}, {}))
    with pytest.raises(InvalidInputError, match="nobody counts down here"):
        await steps.infer({"do": "down", "tokens": -1}, {})
    assert (await inside).result["response"].endswith("19 ")


async def test_one_who_leaves_frees_the_place_at_the_next_step(steps: ProcessWorker) -> None:
    leaving = [asyncio.create_task(steps.infer({"do": str(n), "tokens": 100_000}, {})) for n in range(3)]
    await asyncio.sleep(0.1)
    for task in leaving:
        task.cancel()
    async with asyncio.timeout(10):
        answer = await steps.infer({"do": "next", "tokens": 2}, {})
    assert answer.result == {"response": "0 1 ", "crowd": 1}


async def test_a_timeout_frees_the_place_too(steps: ProcessWorker) -> None:
    with pytest.raises(InferenceTimeoutError):
        await steps.infer({"do": "long", "tokens": 100_000}, {}, 0.1)
    async with asyncio.timeout(10):
        assert (await steps.infer({"do": "next", "tokens": 1}, {})).result["crowd"] == 1


async def test_a_step_that_breaks_fails_those_inside_alone(steps: ProcessWorker) -> None:
    inside = asyncio.create_task(steps.infer({"do": "inside", "tokens": 100_000}, {}))
    await asyncio.sleep(0.1)
    with pytest.raises(EngineError, match="a step that breaks"):
        await steps.infer({"do": "burst", "tokens": 5}, {})
    with pytest.raises(EngineError, match="a step that breaks"):
        await inside
    assert (await steps.infer({"do": "next", "tokens": 1}, {})).result["response"] == "0 "


# ---------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("engine", "data"),
    [
        (BatchEngine, {"do": "tell", "words": ["one ", "two"]}),
        (StepEngine, {"do": "tell", "tokens": 3}),
        (TalkingEngine, {"do": "tell", "words": ["eins ", "zwei"]}),
    ],
)
async def test_pieces_come_before_the_answer(engine: type[BaseEngine], data: dict[str, Any]) -> None:
    pieces: list[str] = []
    async with running(engine) as worker:
        answer = await worker.infer(data, {}, on_delta=pieces.append)
        unstreamed = await worker.infer(data, {})
    assert pieces == data.get("words", ["0 ", "1 ", "2 "])
    if engine is not BatchEngine:
        assert answer.result["response"] == unstreamed.result["response"] == "".join(pieces)
    else:
        assert (answer.result["streamed"], unstreamed.result["streamed"]) == (True, False)


async def test_a_piece_comes_when_it_exists(steps: ProcessWorker) -> None:
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(text: str) -> None:
        if not first.done():
            first.set_result(text)

    asking = asyncio.create_task(steps.infer({"do": "tell", "tokens": 200}, {}, on_delta=hear))
    assert await first == "0 "
    assert not asking.done()
    asking.cancel()
    await until(lambda: steps.in_flight == 0)


async def test_an_error_midway_follows_the_pieces() -> None:
    pieces: list[str] = []
    async with running(TalkingEngine) as worker:
        with pytest.raises(EngineError, match="broken midway"):
            await worker.infer({"do": "tell", "words": ["one ", "break"]}, {}, on_delta=pieces.append)
    assert pieces == ["one "]


async def test_a_thread_tells_pieces_too() -> None:
    worker = ThreadWorker(TalkingEngine, ObedientHandler)
    await worker.load(social_spec(TalkingEngine), lambda error: None)
    pieces: list[str] = []
    hear: Callable[[str], None] = pieces.append
    await worker.infer({"do": "tell", "words": ["one ", "two"]}, {}, on_delta=hear)
    await worker.unload()
    assert pieces == ["one ", "two"]
