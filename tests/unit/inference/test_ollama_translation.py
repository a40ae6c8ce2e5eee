"""Our options and inputs in Ollama's words, its answers in ours."""

from typing import Any

import httpx
import pytest

from src.core.errors import (
    EngineError,
    EngineUnavailableError,
    InsufficientMemoryError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
    QueueFullError,
    WorkerDiedError,
)
from src.inference.engines.ollama.catalogue import full_name
from src.inference.engines.ollama.client import checked, error_for, translated
from src.inference.engines.ollama.translation import (
    StreamedAnswer,
    model_options,
    option_warnings,
    raw_answer,
    repeated,
    request_body,
    together,
)
from src.inference.options import OllamaOptions, default_of

MESSAGES = [{"role": "user", "content": "你好"}]
IMPOSSIBLE = {
    "min_length": 20,
    "num_beams": 4,
    "early_stopping": True,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
SAME = {
    "temperature": 0.1,
    "top_p": 0.5,
    "top_k": 7,
    "min_p": 0.05,
    "typical_p": 0.8,
    "seed": 42,
    "repeat_last_n": 64,
    "presence_penalty": 1.5,
    "frequency_penalty": 1.0,
    "mirostat": 2,
    "mirostat_tau": 4.0,
    "mirostat_eta": 0.2,
    "num_ctx": 4096,
    "num_thread": 2,
    "num_gpu": 0,
    "num_keep": 4,
    "num_batch": 256,
}
TOP_LEVEL = {"keep_alive": "5m", "format": {"type": "object"}, "think": False}
NOT_DEFAULT = {
    **IMPOSSIBLE,
    **SAME,
    **TOP_LEVEL,
    "max_length": 7,
    "max_new_tokens": 7,
    "num_predict": 7,
    "do_sample": False,
    "repetition_penalty": 1.3,
    "repeat_penalty": 1.3,
    "stop": "x",
    "system": "Be brief.",
}


def test_documented_defaults_are_sent() -> None:
    assert model_options({}) == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
        "num_ctx": 2048,
        "num_predict": 128,
        "repeat_penalty": 1.1,
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"max_new_tokens": 40}, {"num_predict": 40}),
        ({"max_length": 200}, {"num_predict": 200}),
        ({"max_new_tokens": 40, "max_length": 200}, {"num_predict": 40}),
        ({"max_new_tokens": 300, "max_length": 200}, {"num_predict": 200}),
        ({"num_predict": 7, "max_new_tokens": 40}, {"num_predict": 7}),
        ({"num_predict": -1}, {"num_predict": -1}),
        ({"repetition_penalty": 1.3}, {"repeat_penalty": 1.3}),
        ({"repetition_penalty": 1.0}, {"repeat_penalty": 1.0}),
        ({"repeat_penalty": 1.4, "repetition_penalty": 1.3}, {"repeat_penalty": 1.4}),
        ({"do_sample": False}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.0}),
        ({"do_sample": True, "temperature": 0.9}, {"temperature": 0.9}),
        ({"stop": "\n"}, {"stop": ["\n"]}),
        ({"stop": ["a", "結束"]}, {"stop": ["a", "結束"]}),
    ],
)
def test_option_in_ollamas_words(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert model_options(ours).items() >= theirs.items()


@pytest.mark.parametrize(("name", "value"), SAME.items())
def test_option_of_the_same_name_passes_through(name: str, value: Any) -> None:
    assert model_options({name: value})[name] == value


def test_the_tables_here_name_every_option() -> None:
    # the executor's business, and the engine's
    ours = {"timeout", "stream", "num_return_sequences", "cache", "queue_priority"}
    assert NOT_DEFAULT.keys() | ours == OllamaOptions.model_fields.keys()


@pytest.mark.parametrize(("name", "value"), NOT_DEFAULT.items())
def test_no_option_is_dropped_in_silence(name: str, value: Any) -> None:
    honoured = request_body("m", "Hi", {name: value}) != request_body("m", "Hi", {})
    assert honoured or option_warnings({name: value})


def test_a_prompt_goes_to_generate() -> None:
    path, body = request_body("qwen3:1.7b", "Hello", {})
    assert path == "/api/generate"
    assert (body["model"], body["prompt"], body["stream"]) == ("qwen3:1.7b", "Hello", False)
    assert not {"messages", "system"} & body.keys()


def test_messages_go_to_chat() -> None:
    path, body = request_body("qwen3:1.7b", MESSAGES, {})
    assert (path, body["messages"]) == ("/api/chat", MESSAGES)
    assert "prompt" not in body


def test_system_stands_beside_a_prompt() -> None:
    assert request_body("m", "Hello", {"system": "Be brief."})[1]["system"] == "Be brief."


def test_system_is_the_first_message_of_a_chat() -> None:
    body = request_body("m", MESSAGES, {"system": "Be brief."})[1]
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *MESSAGES]
    assert "system" not in body


@pytest.mark.parametrize(("name", "value"), TOP_LEVEL.items())
def test_option_that_stands_at_the_top_of_the_body(name: str, value: Any) -> None:
    body = request_body("m", "Hello", {name: value})[1]
    assert body[name] == value
    assert name not in body["options"]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE.items())
def test_an_impossible_option_is_warned_of(name: str, value: Any) -> None:
    (warning,) = option_warnings({name: value})
    assert warning.startswith(f"option '{name}' has no effect: Ollama")


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_option_at_its_default_asks_for_nothing(name: str) -> None:
    assert option_warnings({name: default_of(OllamaOptions, name)}) == []


@pytest.mark.parametrize(
    ("options", "loser"),
    [
        ({"num_predict": 5, "max_new_tokens": 9}, "max_new_tokens"),
        ({"num_predict": 5, "max_length": 9}, "max_length"),
        ({"repeat_penalty": 1.2, "repetition_penalty": 1.1}, "repetition_penalty"),
    ],
)
def test_of_two_options_for_one_thing_the_loser_is_named(options: dict[str, Any], loser: str) -> None:
    (warning,) = option_warnings(options)
    assert f"'{loser}'" in warning


def test_a_generated_answer_in_our_words() -> None:
    line = {"model": "tiny", "response": "Hi", "done_reason": "length", "eval_count": 2, "prompt_eval_count": 5}
    assert raw_answer(line, num_ctx=2048) == {
        "response": "Hi",
        "metadata": {"model": "tiny", "tokens": 2, "finish_reason": "length", "prompt_tokens": 5},
    }


def test_a_chat_answer_in_our_words() -> None:
    raw = raw_answer({"message": {"role": "assistant", "content": "Hi", "thinking": "Hm."}, "eval_count": 2}, 2048)
    assert raw["response"] == "Hi"
    assert (raw["metadata"]["thinking"], raw["metadata"]["finish_reason"]) == ("Hm.", "stop")


@pytest.mark.parametrize(
    "lines",
    [[], [{"response": "a", "done": False}], [{"message": {"role": "assistant", "content": "a"}, "done": False}]],
)
def test_a_streamed_answer_without_its_end_is_none(lines: list[Any]) -> None:
    answer = StreamedAnswer()
    for line in lines:
        answer.add(line)
    with pytest.raises(WorkerDiedError, match="ended its answer before it was complete"):
        answer.whole()


@pytest.mark.parametrize(("prompt_tokens", "warned"), [(None, False), (15, False), (16, True), (17, True)])
def test_a_prompt_that_fills_the_context_is_warned_of(prompt_tokens: int | None, warned: bool) -> None:
    raw = raw_answer({"response": "", "prompt_eval_count": prompt_tokens}, num_ctx=16)
    assert any("num_ctx" in warning for warning in raw.get("warnings", [])) is warned


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llama2", "llama2:latest"),
        ("llama2:7b", "llama2:7b"),
        ("user/model", "user/model:latest"),
        ("localhost:5000/user/model", "localhost:5000/user/model:latest"),
        ("localhost:5000/user/model:1b", "localhost:5000/user/model:1b"),
    ],
)
def test_full_name(name: str, full: str) -> None:
    assert full_name(name) == full


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (404, "model 'x' not found", ModelNotFoundError),
        (503, "server busy, please try again.  maximum pending requests exceeded", QueueFullError),
        (500, "model requires more system memory (5.6 GiB) than is available (2.1 GiB)", InsufficientMemoryError),
        (500, "cudaMalloc failed: out of memory", InsufficientMemoryError),
        (500, "llama runner process has terminated: signal: killed", WorkerDiedError),
        (500, "an error was encountered while running the model: unexpected EOF", WorkerDiedError),
        (400, "invalid format", InvalidInputError),
        (500, 'option "num_ctx" must be of type integer', InvalidInputError),
        (500, "something else", EngineError),
    ],
)
def test_what_ollama_refuses_becomes_our_error(status: int, text: str, kind: type[PlatformError]) -> None:
    with pytest.raises(PlatformError) as caught:
        checked(httpx.Response(status, json={"error": text}))
    assert type(caught.value) is kind
    assert text in caught.value.message


def test_an_error_after_a_200_is_an_error() -> None:
    with pytest.raises(EngineError, match="broke"):
        checked(httpx.Response(200, json={"error": "broke"}))


def test_an_answer_that_is_no_json_is_told_with_its_text() -> None:
    with pytest.raises(EngineError, match="<html>Bad gateway"):
        checked(httpx.Response(502, text="<html>Bad gateway</html>"))


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (httpx.ConnectError("refused"), EngineUnavailableError, "Failed to connect to Ollama server at http://o:1"),
        (httpx.ConnectTimeout("late"), EngineUnavailableError, "ollama serve"),
        (httpx.ReadTimeout("late"), EngineUnavailableError, "did not answer in time"),
        (httpx.RemoteProtocolError("cut"), WorkerDiedError, "broke: cut"),
        (httpx.DecodingError("gzip"), EngineError, "cannot be read"),
    ],
)
def test_httpx_errors_become_ours(raised: httpx.HTTPError, kind: type[PlatformError], words: str) -> None:
    error = translated(raised, "http://o:1")
    assert type(error) is kind
    assert words in error.message


def test_unreachable_and_died_may_be_tried_again() -> None:
    assert translated(httpx.ConnectError("refused"), "http://o").retryable
    assert error_for(500, "llama runner process has terminated").retryable


def test_several_sequences_have_seeds_of_their_own() -> None:
    body = {"model": "m", "options": {"seed": 5}}
    assert [each["options"]["seed"] for each in repeated(body, 3)] == [5, 6, 7]
    assert repeated({"model": "m", "options": {}}, 2) == [{"model": "m", "options": {}}] * 2


def test_several_answers_become_one() -> None:
    raws = [
        {"response": "a", "metadata": {"tokens": 2, "finish_reason": "stop"}, "warnings": ["cut"]},
        {"response": "b", "metadata": {"tokens": 3, "finish_reason": "length"}, "warnings": ["cut"]},
    ]
    assert together(raws) == {
        "response": ["a", "b"],
        "metadata": {"tokens": 5, "finish_reason": "stop"},
        "warnings": ["cut"],
    }
