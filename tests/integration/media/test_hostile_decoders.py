"""Decoders that crash, hang, eat memory or talk rubbish over HTTP: each fails its own request and nothing else."""

import concurrent.futures
import time
from collections.abc import Callable, Iterator

import pytest

from src.core.memory import private_memory
from tests.hostile import DECODE_TIMEOUT, MEMORY_MB, Hostile, data_uri, open_files, undecodable
from tests.service import wait_until
from tests.unit.media import faults
from tests.unit.media.media_files import noise, picture

QUIET_SECONDS = 20.0


@pytest.fixture(scope="module", autouse=True)
def worker(hostile: Hostile) -> int:
    """The process of the model, which none of this may end."""
    return hostile.works()


@pytest.fixture(autouse=True)
def unharmed(hostile: Hostile, worker: int) -> Iterator[None]:
    """Looks, after each test, whether the model still answers from the same process, and nothing was left."""
    yield
    assert hostile.works() == worker
    assert hostile.uploads() == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", "its decoder crashed on it (SIGABRT"),
        ("segfault", "its decoder crashed on it (SIGSEGV"),
        ("leave", "exit status 3: the library gave up"),
        ("fail a reason", "cannot be decoded: a reason"),
        ("eat", f"needs more than {MEMORY_MB} MB to decode (media.memory_mb)"),
        ("shout 50", "its decoder crashed on it"),
        ("misfit", "cannot be decoded: its decoder crashed on it"),
        ("say length", "cannot be decoded: its decoder crashed on it"),
        ("say list", "cannot be decoded: its decoder crashed on it"),
        ("say far", "cannot be decoded: its decoder crashed on it"),
        ("say descriptors", "cannot be decoded: its decoder crashed on it"),
    ],
)
def test_a_decoder_that_fails_fails_its_own_request(hostile: Hostile, fault: str, words: str) -> None:
    body = undecodable(hostile.send("image", faults.file(fault)), "image")
    assert words in body["error"]
    assert body["details"]["detected"] == "image/png"


def test_a_decoder_that_hangs_ends_with_its_time_and_others_are_answered_meanwhile(hostile: Hostile) -> None:
    hostile.works()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        started = time.monotonic()
        hanging = threads.submit(hostile.send, "image", faults.file("hang"))
        while not hanging.done():
            hostile.works()
        body = undecodable(hanging.result(), "image")
    assert f"within {DECODE_TIMEOUT} s (media.decode_timeout)" in body["error"]
    assert time.monotonic() - started < 10 * DECODE_TIMEOUT


def test_a_decoder_cannot_become_many(hostile: Hostile) -> None:
    response = hostile.send("image", faults.file("multiply"))
    assert "1000 of 1000 forks were refused" in response.json()["warnings"]
    assert len(hostile.decoders()) <= 2


def test_the_option_timeout_is_told_from_the_decoders_time(hostile: Hostile) -> None:
    data = {"image": data_uri(faults.file("hang"))}
    request = {"task": "shapes", "engine": "shapes", "model_name": "any", "data": data, "options": {"timeout": 1}}
    response = hostile.service.post("/inference/infer", request)
    assert response.status_code == 504
    assert response.json()["error_type"] == "InferenceTimeoutError"
    assert response.json()["retryable"] is True


@pytest.mark.slow
def test_a_hundred_crashing_uploads_later_the_same_process_answers(
    hostile: Hostile, worker: int, figure: Callable[[str], None]
) -> None:
    service = hostile.service.process.pid
    memory, files = private_memory(service) or 0, open_files(service)
    kinds = ["crash", "segfault", "leave", "say list"]
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        crashing = [threads.submit(hostile.send, "image", faults.file(kinds[n % len(kinds)])) for n in range(100)]
        good = [threads.submit(hostile.send, "image", picture(noise(seed=n))) for n in range(20)]
        for answer in crashing:
            undecodable(answer.result(), "image")
        assert {answer.result().status_code for answer in good} == {200}
    seconds = time.monotonic() - started
    assert hostile.works() == worker
    wait_until(lambda: hostile.decoders() == [], QUIET_SECONDS, "the decoder processes to end")
    assert hostile.uploads() == []
    grown = (private_memory(service) or 0) - memory
    assert grown < 60_000_000
    assert open_files(service) <= files + 5
    figure(
        f"a hundred crashing uploads: {seconds:.0f} s; worker {worker} before and after; "
        f"the service grew by {grown / 1e6:.1f} MB; no decoder process and no file left"
    )
