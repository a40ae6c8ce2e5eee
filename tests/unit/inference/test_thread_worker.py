"""ThreadWorker: a model in a thread of this process, for classes that no other process can import."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import EngineError, InvalidInputError, ModelNotFoundError, PlatformError, UnavailableError
from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler
from src.inference.workers.thread import ThreadWorker
from tests.light_engines import ObedientEngine, ObedientHandler, obedient_spec
from tests.waiting import until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
HANGING = """
import asyncio
from src.inference.workers.thread import ThreadWorker
from tests.light_engines import ObedientEngine, ObedientHandler, obedient_spec

async def main():
    worker = ThreadWorker(ObedientEngine, ObedientHandler)
    await worker.load(obedient_spec(), lambda error: None)
    request = asyncio.create_task(worker.infer({"do": "sleep", "seconds": 600}, {}))
    await asyncio.sleep(0.1)

asyncio.run(main())
"""


class CustomEngine(BaseEngine):
    """As documented, with a note of what was done to its model."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.supported_tasks = ["custom-task"]
        self.is_initialized = True

    def load_model(self, model_name: str, **kwargs: Any) -> dict[str, Any]:
        return {"name": model_name, "path": kwargs["model_path"], "task": kwargs["task"]}

    def infer(self, model: dict[str, Any], inputs: Any, options: dict[str, Any]) -> dict[str, Any]:
        return {"response": f"{inputs} by {model['name']}", "metadata": {"options": options, **model}}

    def unload_model(self, model: Any) -> bool:
        return True


class CustomTaskHandler(BaseModelHandler):
    """As documented."""

    def preprocess(self, data: Any, options: Any) -> dict[str, Any]:
        self.validate_input(data, ["custom_input"])
        if len(data["custom_input"]) > 10:
            raise ValueError("too long")
        return {"inputs": data["custom_input"].upper(), "options": options}

    def postprocess(self, result: Any, options: Any) -> dict[str, Any]:
        return {"custom_output": result["response"], "metadata": result["metadata"]}


async def obedient() -> ThreadWorker:
    worker = ThreadWorker(ObedientEngine, ObedientHandler)
    await worker.load(obedient_spec(), lambda error: None)
    return worker


@pytest.fixture
async def worker() -> AsyncIterator[ThreadWorker]:
    found = await obedient()
    yield found
    await found.unload()


@pytest.fixture
async def custom() -> AsyncIterator[ThreadWorker]:
    found = ThreadWorker(CustomEngine, CustomTaskHandler)
    await found.load(obedient_spec("mine", task="custom-task", model_path="/models/mine"), lambda error: None)
    yield found
    await found.unload()


async def test_classes_as_documented_answer(custom: ThreadWorker) -> None:
    answer = await custom.infer({"custom_input": "hello"}, {"depth": 3})
    assert answer.result == {
        "custom_output": "HELLO by mine",
        "metadata": {"options": {"depth": 3}, "name": "mine", "path": "/models/mine", "task": "custom-task"},
    }


@pytest.mark.parametrize(
    ("data", "words"), [({}, "missing field 'custom_input'"), ({"custom_input": "far too long a text"}, "too long")]
)
async def test_a_value_error_of_the_handler_is_the_inputs_fault(
    custom: ThreadWorker, data: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        await custom.infer(data, {})


async def test_the_model_is_in_this_process(worker: ThreadWorker) -> None:
    assert worker.pid == os.getpid()
    assert (await worker.infer({"do": "echo"}, {})).result["pid"] == os.getpid()


async def test_what_the_engine_says_of_the_model_is_reported(worker: ThreadWorker) -> None:
    assert (worker.report.device, worker.report.dtype, worker.report.engine_version) == ("cpu", "float32", "1.0")
    assert worker.memory_bytes() == 5


async def test_requests_are_answered_one_after_another(worker: ThreadWorker) -> None:
    answers = await asyncio.gather(*(worker.infer({"do": "echo", "say": n}, {}) for n in range(20)))
    assert [answer.result["response"] for answer in answers] == list(range(20))
    assert (await worker.infer({"do": "seen"}, {})).result["response"][:20] == list(range(20))


async def test_the_loop_stays_free_while_the_model_computes(worker: ThreadWorker) -> None:
    request = asyncio.create_task(worker.infer({"do": "sleep", "seconds": 0.5}, {}))
    turns = 0
    while not request.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5


async def test_requests_inside_are_counted(worker: ThreadWorker) -> None:
    requests = [asyncio.create_task(worker.infer({"do": "echo"}, {})) for _ in range(3)]
    await asyncio.sleep(0)
    assert worker.in_flight == 3
    await asyncio.gather(*requests)
    assert worker.in_flight == 0


async def test_a_cancelled_request_stops_and_frees_the_model(worker: ThreadWorker) -> None:
    endless = asyncio.create_task(worker.infer({"do": "wait_for_stop"}, {}))
    await asyncio.sleep(0.1)
    endless.cancel()
    async with asyncio.timeout(10):
        assert (await worker.infer({"do": "echo", "say": 1}, {})).result["response"] == 1
    assert endless.cancelled()


async def test_a_request_cancelled_before_its_turn_is_never_run(worker: ThreadWorker) -> None:
    running = asyncio.create_task(worker.infer({"do": "wait_for_stop"}, {}))
    waiting = [asyncio.create_task(worker.infer({"do": "echo", "say": n}, {})) for n in range(3)]
    await asyncio.sleep(0.1)
    waiting[1].cancel()
    running.cancel()
    assert [(await waiting[n]).result["response"] for n in (0, 2)] == [0, 2]
    assert (await worker.infer({"do": "seen", "say": "end"}, {})).result["response"] == [None, 0, 2, "end"]


@pytest.mark.parametrize(
    ("do", "words"), [("fail", "RuntimeError: broken on purpose"), ("leave", "SystemExit: an engine that ends")]
)
async def test_a_failed_request_leaves_the_worker_alone(worker: ThreadWorker, do: str, words: str) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(EngineError, match=f"engine ObedientEngine failed: {words}"):
            await worker.infer({"do": do}, {})
        assert (await worker.infer({"do": "echo", "say": 1}, {})).result["response"] == 1


@pytest.mark.parametrize(
    ("model", "kind", "words"), [("missing", ModelNotFoundError, "no such model"), ("broken", EngineError, "broken")]
)
async def test_a_failed_load_says_why_and_leaves_no_thread(model: str, kind: type[PlatformError], words: str) -> None:
    worker = ThreadWorker(ObedientEngine, ObedientHandler)
    with pytest.raises(PlatformError, match=words) as caught:
        await worker.load(obedient_spec(model), lambda error: None)
    assert type(caught.value) is kind
    await until(lambda: not worker._thread.is_alive())


async def test_unloading_lets_the_model_go_and_ends_the_thread() -> None:
    models: list[list[Any]] = []

    class Remembering(ObedientEngine):
        def load_model(self, model_name: str, **kwargs: Any) -> list[Any]:
            models.append(super().load_model(model_name, **kwargs))
            return models[-1]

    worker = ThreadWorker(Remembering, ObedientHandler)
    await worker.load(obedient_spec(), lambda error: None)
    await worker.infer({"do": "echo", "say": 1}, {})
    await worker.unload()
    await until(lambda: not worker._thread.is_alive())
    assert models == [[1, "unloaded"]]


async def test_an_engine_that_fails_to_unload_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Clinging(ObedientEngine):
        def unload_model(self, model: Any) -> bool:
            raise RuntimeError("cannot let go")

    worker = ThreadWorker(Clinging, ObedientHandler)
    await worker.load(obedient_spec(), lambda error: None)
    await worker.unload()
    await until(lambda: not worker._thread.is_alive())
    assert "failed to unload" in caplog.text


async def test_unloading_fails_what_waits_as_retryable() -> None:
    worker = await obedient()
    requests = [asyncio.create_task(worker.infer({"do": "sleep", "seconds": 0.2}, {})) for _ in range(2)]
    await asyncio.sleep(0.05)
    await worker.unload()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(outcome, UnavailableError) and outcome.retryable for outcome in outcomes)


async def test_a_request_after_unloading_fails_at_once() -> None:
    worker = await obedient()
    await worker.unload()
    await until(lambda: not worker._thread.is_alive())
    async with asyncio.timeout(5):
        with pytest.raises(UnavailableError, match="unloaded"):
            await worker.infer({"do": "echo"}, {})


def test_an_answer_after_the_loop_has_ended_is_dropped_in_silence() -> None:
    async def ask_and_leave() -> ThreadWorker:
        worker = await obedient()
        request = asyncio.create_task(worker.infer({"do": "sleep", "seconds": 0.2}, {}))
        await asyncio.sleep(0.05)
        request.cancel()
        return worker

    worker = asyncio.run(ask_and_leave())
    time.sleep(0.4)
    assert worker._thread.is_alive()  # it did not die of the loop that is gone
    worker._put(None)
    worker._thread.join(5)


def test_a_model_that_never_returns_does_not_keep_the_interpreter_from_ending() -> None:
    subprocess.run([sys.executable, "-c", HANGING], cwd=ROOT, check=True, timeout=30)
