"""What the fake says depends on the request, so that tests can see what arrived."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from src.testing.fake_ollama import TINY, FakeModel, FakeOllama
from src.testing.fake_ollama.text import StopCutter

MODELS = (
    TINY,
    FakeModel("other"),
    FakeModel("seer", capabilities=("completion", "vision")),
    FakeModel("thinker", capabilities=("completion", "thinking")),
    FakeModel("vectors", capabilities=("embedding",), embedding_length=8),
)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with FakeOllama(MODELS) as server, httpx.Client(base_url=server.url) as client:
        yield client


def generate(client: httpx.Client, prompt: str = "the cat", model: str = "tiny", **body: Any) -> dict[str, Any]:
    request = {"model": model, "prompt": prompt, "stream": False, **body}
    answer = client.post("/api/generate", json=request)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def text(client: httpx.Client, **body: Any) -> str:
    said: str = generate(client, **body)["response"]
    return said


def test_the_same_request_has_the_same_answer(client: httpx.Client) -> None:
    assert text(client) == text(client)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "the dog"},
        {"system": "be long"},
        {"model": "other"},
        {"template": "{{ .Prompt }}!"},
        {"options": {"seed": 7}},
        {"options": {"temperature": 0.1}},
        {"options": {"top_k": 3}},
        {"options": {"repeat_penalty": 2.0}},
    ],
    ids=str,
)
def test_what_a_real_model_would_notice_changes_the_answer(client: httpx.Client, change: dict[str, Any]) -> None:
    assert text(client, **change) != text(client)


def test_at_temperature_0_the_seed_does_not_matter(client: httpx.Client) -> None:
    answers = {text(client, options={"temperature": 0, "seed": seed}) for seed in range(3)}
    assert len(answers) == 1


def test_chat_and_generate_say_the_same_to_the_same_prompt(client: httpx.Client) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "stream": False}
    assert client.post("/api/chat", json=body).json()["message"]["content"] == text(client)


def test_num_predict_bounds_the_answer(client: httpx.Client) -> None:
    answer = generate(client, options={"num_predict": 3})
    assert (answer["eval_count"], answer["done_reason"]) == (3, "length")
    assert answer["response"] == " ".join(text(client).split(" ")[:4])


def test_an_answer_without_a_bound_ends_by_itself(client: httpx.Client) -> None:
    answer = generate(client)
    assert answer["done_reason"] == "stop"
    assert 32 <= answer["eval_count"] < 64


def test_a_stop_word_cuts_the_answer(client: httpx.Client) -> None:
    whole = text(client)
    word = whole.split()[5]
    answer = generate(client, options={"stop": [word]})
    assert answer["response"] == whole[: whole.index(word)]
    assert answer["done_reason"] == "stop"


def test_a_stop_word_in_several_tokens_never_leaves() -> None:
    cutter = StopCutter(["b c"])
    assert [cutter.push(token) for token in (" a", " b", " c")] == [" a", " ", ""]
    assert (cutter.stopped, cutter.rest()) == (True, "")


def test_text_that_only_began_like_a_stop_word_leaves_late() -> None:
    cutter = StopCutter(["b c"])
    assert [cutter.push(token) for token in (" b", " d")] == [" ", "b d"]
    assert not cutter.stopped


def test_a_prompt_longer_than_the_context_is_cut_in_silence(client: httpx.Client) -> None:
    answer = generate(client, prompt="the cat " * 200, options={"num_ctx": 64})
    assert answer["prompt_eval_count"] == 64


def test_a_model_that_sees_notices_an_image(client: httpx.Client) -> None:
    images = [base64.b64encode(picture).decode() for picture in (b"one", b"two")]
    answers = {text(client, model="seer", images=chosen) for chosen in ([], images[:1], images[1:])}
    assert len(answers) == 3


def test_an_image_that_is_no_base64_is_refused(client: httpx.Client) -> None:
    answer = client.post("/api/generate", json={"model": "seer", "prompt": "x", "images": ["?"]})
    assert (answer.status_code, answer.json()) == (400, {"error": "illegal base64 data at input byte 0"})


def test_format_json_answers_in_json(client: httpx.Client) -> None:
    assert "answer" in json.loads(text(client, format="json"))


def test_a_schema_is_fulfilled(client: httpx.Client) -> None:
    properties = {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}},
        "known": {"type": "boolean"},
    }
    said = json.loads(text(client, format={"type": "object", "properties": properties}))
    assert [type(said[name]) for name in properties] == [str, int, list, bool]
    assert said["tags"] == ["new"]


@pytest.mark.parametrize(("think", "thinks"), [(None, True), (True, True), (False, False)])
def test_a_thinking_model_thinks_unless_told_not_to(client: httpx.Client, think: Any, thinks: bool) -> None:
    assert ("thinking" in generate(client, model="thinker", think=think)) is thinks


def test_a_model_for_vectors_does_not_talk(client: httpx.Client) -> None:
    answer = client.post("/api/generate", json={"model": "vectors", "prompt": "x"})
    assert (answer.status_code, answer.json()) == (400, {"error": '"vectors" does not support generate'})


def test_vectors_are_unit_vectors_and_follow_the_text(client: httpx.Client) -> None:
    texts = ["the cat", "the cat", "the dog"]
    vectors = client.post("/api/embed", json={"model": "vectors", "input": texts}).json()["embeddings"]
    assert vectors[0] == vectors[1] != vectors[2]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)


def test_openai_options_reach_the_model(client: httpx.Client) -> None:
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}]}
    body |= {"temperature": 0.5, "top_p": 0.8, "seed": 3}
    said = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert said == text(client, options={"temperature": 0.5, "top_p": 0.8, "seed": 3})
