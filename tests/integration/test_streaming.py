"""Answers in pieces: over HTTP as server-sent events, and from the Python door."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from src.core.config import load_settings
from src.core.errors import EngineError, InvalidInputError
from src.core.model_manager import ModelManager
from src.core.settings_sections import WorkerSettings
from src.inference.manager import InferenceManager
from src.inference.registry import ModelRegistry
from tests.light_engines import ObedientHandler
from tests.service import CLIENT, Service, running_service, wait_until
from tests.social_engines import StepEngine, TalkingEngine, install
from tests.sse import streamed

INFER = "/inference/infer"


@pytest.fixture(scope="module")
def social(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the engines that tell their answers piece by piece."""
    folder = tmp_path_factory.mktemp("social")
    with running_service(folder / "data", AIML_WORKERS__PRELOAD="never", **install(folder / "plugin")) as running:
        yield running


def asked(engine: str = "step", *, stream: bool | None = True, **data: Any) -> dict[str, Any]:
    options = {} if stream is None else {"stream": stream}
    return {"task": "obey", "engine": engine, "model_name": "any", "data": {"do": "it", **data}, "options": options}


@pytest.mark.parametrize(("engine", "data"), [("step", {"tokens": 3}), ("talking", {"words": ["0 ", "1 ", "2 "]})])
def test_deltas_come_and_last_the_whole_answer(social: Service, engine: str, data: dict[str, Any]) -> None:
    with streamed(social.url + INFER, asked(engine, **data)) as (response, events):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"]
        *deltas, (last, envelope) = list(events)
    assert deltas == [("delta", {"text": text}) for text in ("0 ", "1 ", "2 ")]
    assert last == "result"
    assert envelope["success"] is True
    assert envelope["result"]["response"] == "0 1 2 "
    assert envelope["provenance"]["engine"] == engine
    assert envelope["request_id"] == response.headers["x-request-id"]
    assert envelope["usage"] == {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}


def test_accept_asks_for_events_and_the_option_has_the_last_word(social: Service) -> None:
    accept = {"Accept": "text/event-stream"}
    with streamed(social.url + INFER, asked(tokens=1, stream=None), headers=accept) as (_, events):
        assert [name for name, _ in events] == ["delta", "result"]
    whole = social.post(INFER, asked(tokens=1, stream=False), headers=accept)
    assert whole.json()["result"]["response"] == "0 "


def test_the_first_piece_leaves_when_it_exists(social: Service) -> None:
    with streamed(social.url + INFER, asked(tokens=400)) as (_, events):
        assert next(events) == ("delta", {"text": "0 "})
        # 400 steps take two seconds: the model is at work still.
        assert social.get("/inference/stats").json()["models"]["any"]["loaded"][0]["in_flight"] == 1


def test_those_under_way_together_are_all_in_flight(social: Service) -> None:
    with ExitStack() as stack:
        body = asked(tokens=100_000)
        streams = [stack.enter_context(streamed(social.url + INFER, body))[1] for _ in range(3)]
        assert [next(events)[0] for events in streams] == ["delta"] * 3
        state = social.get("/inference/stats").json()["models"]["any"]["loaded"][0]
        assert (state["in_flight"], state["queued"]) == (3, 0)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (asked(tokens=-1), 400, "nobody counts down here"),
        ({**asked(tokens=1), "task": "obye"}, 422, "did you mean 'obey'"),
        ({**asked(), "data": {}}, 400, "missing field 'do'"),
        (asked("talking", words=["break"]), 500, "broken midway"),
    ],
)
def test_what_fails_before_its_first_piece_is_a_plain_failure(
    social: Service, body: dict[str, Any], status: int, words: str
) -> None:
    response = social.post(INFER, body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json()["success"] is False
    assert words in response.json()["error"]


def test_what_fails_midway_is_an_event(social: Service) -> None:
    with streamed(social.url + INFER, asked("talking", words=["one ", "break"])) as (response, events):
        assert response.status_code == 200
        (first, (name, failure)) = list(events)
    assert first == ("delta", {"text": "one "})
    assert name == "error"
    assert (failure["success"], failure["error_type"]) == (False, "EngineError")
    assert "broken midway" in failure["error"]
    assert failure["request_id"] == response.headers["x-request-id"]


def test_a_client_that_leaves_stops_its_work_and_frees_its_place(social: Service) -> None:
    for _ in range(5):
        with streamed(social.url + INFER, asked(tokens=100_000)) as (_, events):
            next(events)

    def idle() -> bool:
        loaded = social.get("/inference/stats").json()["models"]["any"]["loaded"]
        return not any(model["in_flight"] for model in loaded)

    wait_until(idle, 10, "the model to be idle")
    with streamed(social.url + INFER, asked(tokens=1)) as (_, events):
        assert dict(events)["result"]["result"] == {"response": "0 ", "crowd": 1}


def test_a_form_with_files_streams_too(social: Service) -> None:
    form = {"request": (None, json.dumps(asked(tokens=2)), "application/json")}
    with CLIENT.stream("POST", social.url + INFER + "/upload", files=form, timeout=60) as response:
        assert response.status_code == 200
        text = response.read().decode()
    assert [line for line in text.splitlines() if line.startswith("event")] == ["event: delta"] * 2 + ["event: result"]


def test_the_schema_tells_of_events(social: Service) -> None:
    operation = social.get("/openapi.json").json()["paths"][INFER]["post"]
    assert "text/event-stream" in operation["responses"]["200"]["content"]


# ---------------------------------------------------------------------- Python


@pytest.fixture
def door(tmp_path: Path) -> Iterator[InferenceManager]:
    """A manager with the engines of this test."""
    workers = WorkerSettings(preload="never")
    settings = load_settings(data_dir=tmp_path / "data", samples="off", workers=workers)
    registry = ModelRegistry()
    registry.register_handler_manually("obey", "default", ObedientHandler)
    for engine in (StepEngine, TalkingEngine):
        registry.register_engine(engine.name, engine)
    manager = InferenceManager(ModelManager(settings), registry)
    yield manager
    manager.close()


def ask(engine: str = "step", **data: Any) -> tuple[str, str, str, dict[str, Any]]:
    return "obey", engine, "any", {"do": "it", **data}


def test_the_python_door_yields_pieces(door: InferenceManager) -> None:
    *deltas, last = list(door.stream(*ask(tokens=2)))
    assert deltas == [{"type": "delta", "text": "0 "}, {"type": "delta", "text": "1 "}]
    assert last["type"] == "result"
    assert last["result"]["response"] == "0 1 "


def test_failures_are_events_or_raised(door: InferenceManager) -> None:
    first, last = list(door.stream(*ask("talking", words=["one ", "break"])))
    assert (first["text"], last["type"], last["error_type"]) == ("one ", "error", "EngineError")
    with pytest.raises(EngineError, match="broken midway"):
        list(door.stream(*ask("talking", words=["one ", "break"]), raise_on_error=True))


def test_leaving_the_loop_stops_the_work(door: InferenceManager) -> None:
    for event in door.stream(*ask(tokens=100_000)):
        assert event["type"] == "delta"
        break
    wait_until(lambda: door.get_cached_models()[0]["idle_seconds"] > 0, 10, "the model to be idle")


def test_infer_says_where_pieces_are_to_be_had(door: InferenceManager) -> None:
    with pytest.raises(InvalidInputError, match=r"inference_manager\.stream"):
        door.infer(*ask(tokens=1), options={"stream": True}, raise_on_error=True)


def test_astream_works_from_a_loop_of_the_callers_own(door: InferenceManager) -> None:
    async def follow() -> list[Any]:
        return [event async for event in door.astream(*ask(tokens=2))]

    *deltas, last = asyncio.run(follow())
    assert [event["text"] for event in deltas] == ["0 ", "1 "]
    assert last["result"]["response"] == "0 1 "
