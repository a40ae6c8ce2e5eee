"""ProcessWorker: a model in a process of its own, which answers, stops, dies and goes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import (
    EngineError,
    InsufficientMemoryError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    PlatformError,
    ValidationError,
    WorkerDiedError,
)
from src.inference.engines.transformers import TransformersEngine
from src.inference.models.base import BaseModelHandler
from src.inference.models.text_generation import TextGenerationHandler
from src.inference.workers.base import LoadSpec
from src.inference.workers.host import NotImportableError, class_reference, import_class
from src.inference.workers.launching import WorkerProcess, start_fresh
from src.inference.workers.process import ProcessWorker, kernel_watch
from tests.light_engines import ObedientEngine, obedient_spec
from tests.service import is_alive, wait_until
from tests.tiny_models import tiny_llama
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("torch")]

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import asyncio
from src.inference.workers.launching import start_fresh
from src.inference.workers.process import ProcessWorker
from tests.light_engines import obedient_spec

async def launch(connection):
    return start_fresh(connection)

async def main():
    worker = ProcessWorker(launch, start_timeout=60, load_timeout=60)
    await worker.load(obedient_spec(), lambda error: None)
    request = asyncio.create_task(worker.infer({"do": DO, "seconds": 60}, {}))
    await asyncio.sleep(0.2)
    print(worker.pid, flush=True)
    await request

asyncio.run(main())
"""


def transformers_spec(path: Path) -> LoadSpec:
    return LoadSpec(
        engine=class_reference(TransformersEngine) or "",
        engine_config={"device": "cpu", "torch_dtype": "auto"},
        handler=class_reference(TextGenerationHandler) or "",
        task="text-generation",
        model_name="tiny",
        model_path=str(path),
        device=None,
        dtype=None,
    )


async def launch(connection: socket.socket) -> WorkerProcess:
    return start_fresh(connection)


def new_worker(*, start: float = 60, load: float = 120) -> ProcessWorker:
    return ProcessWorker(launch, start_timeout=start, load_timeout=load)


async def loaded(spec: LoadSpec, on_death: Callable[[PlatformError], None] = lambda error: None) -> ProcessWorker:
    worker = new_worker()
    await worker.load(spec, on_death)
    return worker


@pytest.fixture(scope="module")
async def tiny(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProcessWorker]:
    """A worker with a tiny Llama."""
    worker = await loaded(transformers_spec(tiny_llama(tmp_path_factory.mktemp("models") / "tiny")))
    yield worker
    await worker.unload()


@pytest.fixture(scope="module")
async def obedient() -> AsyncIterator[ProcessWorker]:
    """A worker that does as it is told."""
    worker = await loaded(obedient_spec())
    yield worker
    await worker.unload()


# ---------------------------------------------------------------------- with a model


async def test_a_loaded_model_is_reported(tiny: ProcessWorker) -> None:
    report = tiny.report
    assert (report.device, report.dtype) == ("cpu", "float32")
    assert report.engine_version is not None
    assert report.parameter_bytes is not None
    assert report.parameter_bytes > 10_000


async def test_a_model_answers(tiny: ProcessWorker) -> None:
    answer = await tiny.infer({"inputs": "Hi"}, {"max_new_tokens": 12, "min_length": 100, "language": "zh"})
    assert isinstance(answer.result["generated_text"], str)
    assert answer.result["metadata"]["tokens"] == 12
    assert answer.warnings == ["option 'language' has no effect on text-generation"]


async def test_an_error_of_the_model_keeps_its_type(tiny: ProcessWorker) -> None:
    with pytest.raises(InvalidInputError, match="max_new_tokens") as caught:
        await tiny.infer({"inputs": "a long prompt"}, {"max_length": 5})
    assert caught.value.details == {"prompt_tokens": 13, "max_length": 5}


async def test_a_cancelled_generation_stops_and_frees_the_model(tiny: ProcessWorker) -> None:
    endless = asyncio.create_task(tiny.infer({"inputs": "Hi"}, {"max_new_tokens": 2000, "min_length": 2000}))
    await asyncio.sleep(0.3)
    assert not endless.done()
    endless.cancel()
    started = time.monotonic()
    await tiny.infer({"inputs": "Hi"}, {"max_new_tokens": 1})
    assert time.monotonic() - started < 2  # 2000 tokens take much longer
    assert endless.cancelled()


async def test_memory_is_that_of_the_models_process(tiny: ProcessWorker) -> None:
    memory = tiny.memory_bytes()
    assert memory is not None
    assert memory > 50_000_000


# ---------------------------------------------------------------------- requests


async def test_an_answer_comes_from_another_process(obedient: ProcessWorker) -> None:
    answer = await obedient.infer({"do": "echo", "say": "你好", "warn": ["slow"]}, {})
    assert answer.result == {"response": "你好", "pid": obedient.pid}
    assert answer.warnings == ["slow"]
    assert obedient.pid != os.getpid()


async def test_many_requests_at_once_get_their_own_answers(obedient: ProcessWorker) -> None:
    answers = await asyncio.gather(*(obedient.infer({"do": "echo", "say": n}, {}) for n in range(100)))
    assert [answer.result["response"] for answer in answers] == list(range(100))


async def test_a_large_body_goes_both_ways(obedient: ProcessWorker) -> None:
    text = "大" * 1_000_000
    assert (await obedient.infer({"do": "echo", "say": text}, {})).result["response"] == text


async def test_requests_inside_are_counted(obedient: ProcessWorker) -> None:
    requests = [asyncio.create_task(obedient.infer({"do": "echo"}, {})) for _ in range(3)]
    await asyncio.sleep(0)
    assert obedient.in_flight == 3
    await asyncio.gather(*requests)
    assert obedient.in_flight == 0


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ({}, InvalidInputError, "missing field 'do'"),
        ({"do": "fail"}, EngineError, "engine ObedientEngine failed: RuntimeError: broken on purpose"),
        ({"do": "unspeakable"}, EngineError, "not JSON serializable"),
        ({"do": object()}, ValidationError, "data and options must hold JSON values, bytes or arrays"),
    ],
)
async def test_a_failed_request_leaves_the_worker_alone(
    obedient: ProcessWorker, data: dict[str, Any], kind: type[PlatformError], words: str
) -> None:
    with pytest.raises(PlatformError, match=words) as caught:
        await obedient.infer(data, {})
    assert type(caught.value) is kind
    assert (await obedient.infer({"do": "echo", "say": 1}, {})).result["response"] == 1
    assert obedient.in_flight == 0


async def test_a_request_cancelled_before_its_turn_is_never_run(obedient: ProcessWorker) -> None:
    running = asyncio.create_task(obedient.infer({"do": "wait_for_stop"}, {}))
    waiting = [asyncio.create_task(obedient.infer({"do": "echo", "say": f"waiting {n}"}, {})) for n in range(3)]
    await asyncio.sleep(0.1)
    waiting[1].cancel()
    running.cancel()
    assert [(await waiting[n]).result["response"] for n in (0, 2)] == ["waiting 0", "waiting 2"]
    seen = (await obedient.infer({"do": "seen"}, {})).result["response"]
    assert [text for text in seen if str(text).startswith("waiting")] == ["waiting 0", "waiting 2"]


async def test_what_a_library_prints_stays_out_of_our_output(
    obedient: ProcessWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    await obedient.infer({"do": "shout"}, {})
    assert "noise" not in capfd.readouterr().out


# ---------------------------------------------------------------------- death and leaving


async def test_a_killed_process_fails_its_requests_as_retryable_and_is_told_once() -> None:
    deaths: list[PlatformError] = []
    worker = await loaded(obedient_spec(), deaths.append)
    requests = [asyncio.create_task(worker.infer({"do": "wait_for_stop"}, {})) for _ in range(3)]
    await asyncio.sleep(0.1)
    os.kill(worker.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WorkerDiedError] * 3
    assert all(isinstance(outcome, WorkerDiedError) and outcome.retryable for outcome in outcomes)
    with pytest.raises(WorkerDiedError):
        await worker.infer({"do": "echo"}, {})
    await worker.unload()
    assert [type(death) for death in deaths] == [WorkerDiedError]


async def test_a_death_between_load_and_its_report_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[PlatformError] = []
    worker = new_worker()
    ask = worker._ask

    async def ask_and_lose(*args: Any) -> Any:
        answer = await ask(*args)
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: worker._death is not None)
        return answer

    monkeypatch.setattr(worker, "_ask", ask_and_lose)
    try:
        await worker.load(obedient_spec(), deaths.append)
    except WorkerDiedError as error:
        deaths.append(error)
    assert [type(death) for death in deaths] == [WorkerDiedError]
    await worker.unload()


async def test_unloading_ends_the_process_without_a_word_of_death() -> None:
    deaths: list[PlatformError] = []
    worker = await loaded(obedient_spec(), deaths.append)
    await worker.infer({"do": "echo"}, {})
    await worker.unload()
    assert not is_alive(worker.pid)
    assert deaths == []


async def test_unloading_fails_what_is_still_inside_as_retryable() -> None:
    worker = await loaded(obedient_spec())
    request = asyncio.create_task(worker.infer({"do": "sleep", "seconds": 60}, {}))
    await asyncio.sleep(0.1)
    await worker.unload()
    with pytest.raises(WorkerDiedError, match="unloaded") as caught:
        await request
    assert caught.value.retryable
    assert not is_alive(worker.pid)


# ---------------------------------------------------------------------- loads that fail


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        (obedient_spec("missing"), ModelNotFoundError, "no such model"),
        (obedient_spec("broken"), EngineError, "engine ObedientEngine failed: RuntimeError: broken weights"),
        (obedient_spec("deadly"), WorkerDiedError, "died while it loaded"),
        (obedient_spec(engine="no_such_module:Engine"), NotImportableError, "no_such_module"),
        (obedient_spec(handler="tests.light_engines:NoSuchHandler"), NotImportableError, "NoSuchHandler"),
        (transformers_spec(Path("/no/such/folder")), ModelLoadError, "no config.json"),
    ],
    ids=["missing", "broken", "deadly", "no module", "no class", "no model files"],
)
async def test_a_failed_load_says_why_and_leaves_no_process(spec: LoadSpec, kind: type[Exception], words: str) -> None:
    worker = new_worker()
    with pytest.raises(kind, match=words) as caught:
        await worker.load(spec, lambda error: pytest.fail("a failed load is no death"))
    assert type(caught.value) is kind
    assert worker.pid > 0
    await until(lambda: not is_alive(worker.pid))


@pytest.mark.parametrize(
    ("start", "load", "words"), [(60, 0.3, "'slow' was not loaded within 0.3 s"), (0.001, 60, "did not start within")]
)
async def test_a_load_that_takes_too_long_leaves_no_process(start: float, load: float, words: str) -> None:
    worker = new_worker(start=start, load=load)
    with pytest.raises(ModelLoadError, match=words):
        await worker.load(obedient_spec("slow"), lambda error: None)
    await until(lambda: not is_alive(worker.pid))


async def test_a_cancelled_load_leaves_no_process() -> None:
    worker = new_worker()
    load = asyncio.create_task(worker.load(obedient_spec("slow"), lambda error: None))
    await until(lambda: worker.pid > 0)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    await until(lambda: not is_alive(worker.pid))


async def test_a_load_cancelled_before_its_process_exists_hangs_up() -> None:
    ends: list[socket.socket] = []

    async def never(connection: socket.socket) -> WorkerProcess:
        ends.append(connection.dup())
        await asyncio.sleep(60)
        raise AssertionError

    worker = ProcessWorker(never, start_timeout=60, load_timeout=60)
    load = asyncio.create_task(worker.load(obedient_spec(), lambda error: None))
    await until(lambda: bool(ends))
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    with ends[0] as end:
        end.settimeout(5)
        assert end.recv(1) == b""


# ---------------------------------------------------------------------- the service dies


@pytest.mark.parametrize("doing", ["wait_for_stop", "sleep"])
def test_a_worker_does_not_outlive_a_killed_service(doing: str) -> None:
    script = PARENT.replace("DO", repr(doing))
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_until(lambda: not is_alive(child), 5, "the worker to end with its service")


# ---------------------------------------------------------------------- references to classes


def test_a_class_that_others_can_import_has_a_reference() -> None:
    reference = class_reference(ObedientEngine)
    assert reference == "tests.light_engines:ObedientEngine"
    assert import_class(reference) is ObedientEngine


def test_a_class_made_in_a_function_has_none() -> None:
    class LocalHandler(BaseModelHandler):
        pass

    assert class_reference(LocalHandler) is None


@pytest.mark.parametrize("module", ["__main__", "a_module_that_nobody_imported"])
def test_a_class_of_a_script_or_a_notebook_has_none(module: str) -> None:
    assert class_reference(type("CustomHandler", (BaseModelHandler,), {"__module__": module})) is None


async def test_a_process_that_the_kernel_killed_for_memory_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await loaded(obedient_spec())
    request = asyncio.create_task(worker.infer({"do": "wait_for_stop"}, {}))
    await asyncio.sleep(0.1)
    monkeypatch.setattr(kernel_watch, "look", lambda: True)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(InsufficientMemoryError, match="clear the cache"):
        await request
    await worker.unload()


@pytest.mark.parametrize("size", [3, 1 << 19], ids=["small", "shared memory"])
async def test_arrays_and_bytes_go_both_ways(size: int) -> None:
    worker = await loaded(obedient_spec())
    array = np.arange(size, dtype=np.float64)
    answer = await worker.infer({"do": "echo", "say": {"array": array, "raw": b"\x00\xff"}}, {})
    said = answer.result["response"]
    assert np.array_equal(said["array"], array)
    assert said["raw"] == b"\x00\xff"
    await worker.unload()
