"""`aiml infer`: what is asked, and what is printed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import StreamingResponse
from typer.testing import Result

from tests.unit.cli.stub_service import Stub, failure

Run = Callable[..., Result]
INFER = "/inference/infer"


def envelope(result: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"success": True, "result": result, **more}


@pytest.fixture(autouse=True)
def _answers(stub: Stub) -> None:
    stub.on("POST", INFER, envelope({"generated_text": "72", "metadata": {"tokens": 3}}))


def ask(aiml: Run, *arguments: str, **options: Any) -> Result:
    return aiml("infer", "--task", "text-generation", "--engine", "transformers", "--model", "m", *arguments, **options)


def test_a_prompt_is_the_inputs(aiml: Run, stub: Stub) -> None:
    done = ask(aiml, "What is 27 plus 45?")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "72\n", "")
    assert stub.asked[0].json == {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": "m",
        "data": {"inputs": "What is 27 plus 45?"},
        "options": {},
    }


def test_a_dash_reads_the_prompt_from_stdin(aiml: Run, stub: Stub) -> None:
    ask(aiml, "-", input="first\nsecond\n")
    assert stub.asked[0].json["data"] == {"inputs": "first\nsecond\n"}


def test_options_are_json_where_they_can_be(aiml: Run, stub: Stub) -> None:
    ask(aiml, "x", "--option", "temperature=0.5", "-o", "stop=a=b", "-o", "seed=null", "-o", 'language="5"')
    assert stub.asked[0].json["options"] == {"temperature": 0.5, "stop": "a=b", "seed": None, "language": "5"}


@pytest.mark.parametrize("inline", [True, False])
def test_data_is_json_or_a_file_of_it(aiml: Run, stub: Stub, tmp_path: Path, inline: bool) -> None:
    text = '{"image": "cat.png", "prompt": "什麼?"}'
    (tmp_path / "data.json").write_text(text, encoding="utf-8")
    ask(aiml, "--data", text if inline else f"@{tmp_path / 'data.json'}")
    assert stub.asked[0].json["data"] == {"image": "cat.png", "prompt": "什麼?"}


@pytest.mark.parametrize(
    "arguments",
    [(), ("x", "--data", "{}"), ("--data", "[1]"), ("--data", "{"), ("--data", "@/nowhere"), ("x", "-o", "=1")],
)
def test_what_cannot_be_asked_is_wrong_usage(aiml: Run, stub: Stub, arguments: list[str]) -> None:
    assert ask(aiml, *arguments).exit_code == 2
    assert stub.asked == []


@pytest.mark.parametrize(
    ("result", "printed"),
    [
        ({"generated_text": "a", "generated_texts": ["a", "b"]}, "a\n\nb\n"),
        ({"description": "a cat", "metadata": {}}, "a cat\n"),
        ({"transcription": "hello"}, "hello\n"),
        ({"text": ""}, "\n"),
        ({"analysis": "x"}, "x\n"),
        ({"answer": "42"}, "42\n"),
        ({"forecast": [1, 2]}, '{\n  "forecast": [\n    1,\n    2\n  ]\n}\n'),
    ],
)
def test_the_result_of_a_task_is_printed(aiml: Run, stub: Stub, result: dict[str, Any], printed: str) -> None:
    stub.on("POST", INFER, envelope(result))
    assert ask(aiml, "x").stdout == printed


def test_labels_are_printed_with_their_scores(aiml: Run, stub: Stub) -> None:
    stub.on("POST", INFER, envelope({"labels": ["dog", "cat"], "scores": [0.9, 0.1]}))
    assert [line.split() for line in ask(aiml, "x").stdout.splitlines()[1:]] == [["dog", "0.9"], ["cat", "0.1"]]


def test_json_is_the_whole_envelope(aiml: Run) -> None:
    assert json.loads(ask(aiml, "x", "--json").stdout)["result"]["metadata"] == {"tokens": 3}


def test_warnings_go_to_stderr(aiml: Run, stub: Stub) -> None:
    stub.on("POST", INFER, envelope({"generated_text": "72"}, warnings=["top_k has no effect"]))
    done = ask(aiml, "x")
    assert (done.stdout, done.stderr) == ("72\n", "warning: top_k has no effect\n")


def told(*happened: dict[str, Any]) -> StreamingResponse:
    """Returns a stream of an answer's events."""
    return StreamingResponse(iter([f"event: e\ndata: {json.dumps(each)}\n\n" for each in happened]))


WHOLE = envelope({"generated_text": "72 it is", "metadata": {}}, usage={"total_tokens": 3}, warnings=["one"])


@pytest.mark.parametrize("asked", [["--stream"], ["--option", "stream=true"]])
def test_a_stream_is_printed_as_it_comes(aiml: Run, stub: Stub, asked: list[str]) -> None:
    stub.on("POST", INFER, told({"text": "72 "}, {"text": "it is"}, WHOLE))
    done = ask(aiml, "x", *asked)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "72 it is\n", "warning: one\n")
    assert stub.asked[0].json["options"] == {"stream": True}


def test_a_stream_without_pieces_prints_the_result(aiml: Run, stub: Stub) -> None:
    stub.on("POST", INFER, told(WHOLE))
    assert ask(aiml, "x", "--stream").stdout == "72 it is\n"


def test_json_of_a_stream_is_the_whole_envelope(aiml: Run, stub: Stub) -> None:
    stub.on("POST", INFER, told({"text": "72 "}, WHOLE))
    assert json.loads(ask(aiml, "x", "--stream", "--json").stdout) == WHOLE


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ([{"success": False, "error": "the model's process ended", "error_type": "WorkerDiedError"}], "process ended"),
        ([], "The answer broke off: ask again"),
    ],
)
def test_a_stream_that_fails_midway_is_a_failure(
    aiml: Run, stub: Stub, last: list[dict[str, Any]], sentence: str
) -> None:
    stub.on("POST", INFER, told({"text": "72 "}, *last))
    done = ask(aiml, "x", "--stream")
    assert (done.exit_code, done.stdout) == (1, "72 \n")
    assert sentence in done.stderr


def test_a_stream_that_is_refused_is_its_sentence(aiml: Run, stub: Stub) -> None:
    stub.on("POST", INFER, failure(404, "ModelNotFoundError", "there is no model 'm'"))
    done = ask(aiml, "x", "--stream")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no model 'm'" in done.stderr


def test_a_failure_is_its_sentence(aiml: Run, stub: Stub) -> None:
    stub.on("POST", INFER, failure(422, "ValidationError", "unknown option 'x'"))
    done = ask(aiml, "x", "--json")
    assert (done.exit_code, done.stderr) == (1, "error: unknown option 'x'\n")
    assert json.loads(done.stdout)["success"] is False


def test_task_and_engine_are_those_that_the_model_is_registered_for(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/models/registered_in_mlflow/org/qwen:1.7b@production", {"task": "vlm", "engine": "ollama"})
    assert aiml("infer", "-m", "org/qwen:1.7b@production", "x").exit_code == 0
    assert {name: stub.asked[1].json[name] for name in ("task", "engine")} == {"task": "vlm", "engine": "ollama"}


def test_a_model_that_only_its_engine_knows_needs_the_engine(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/models/registered_in_mlflow/m", failure(404, "ModelNotFoundError", "Model 'm' not found"))
    assert "needs --engine" in aiml("infer", "-m", "m", "x").stderr
    assert aiml("infer", "-m", "m", "x", "--engine", "ollama").exit_code == 0
    assert stub.asked[-1].json["task"] == "text-generation"


def test_a_registry_that_is_away_is_no_missing_model(aiml: Run, stub: Stub) -> None:
    stub.on("GET", "/models/registered_in_mlflow/m", failure(503, "RegistryUnavailableError", "away"))
    assert aiml("infer", "-m", "m", "x").stderr == "error: away\n"
