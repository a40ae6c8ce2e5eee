"""Pictures for an Ollama server: how they travel, and who can see them."""

import asyncio
import base64
from typing import Any

import pytest

from src.core.errors import InvalidInputError
from src.inference.engines.ollama.catalogue import OllamaCatalogue, shown_capabilities
from src.inference.engines.ollama.engine import OllamaEngine, check_vision
from src.inference.engines.ollama.translation import request_body, shows_pictures
from src.testing.fake_ollama import FakeModel, FakeOllama

MESSAGE = {"role": "user", "content": "What is this?", "images": [b"\x89PNG1", b"\x89PNG2"]}


def test_pictures_travel_in_base64_in_the_users_message() -> None:
    path, body = request_body("seer", [MESSAGE], {"system": "Be brief."})
    assert path == "/api/chat"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {**MESSAGE, "images": [base64.b64encode(file).decode() for file in (b"\x89PNG1", b"\x89PNG2")]},
    ]


def test_only_messages_with_pictures_need_eyes() -> None:
    assert shows_pictures([MESSAGE])
    assert not shows_pictures([{"role": "user", "content": "hello"}])
    assert not shows_pictures("hello")


@pytest.mark.parametrize(
    ("shown", "capabilities"),
    [
        ({"capabilities": ["completion", "vision"]}, {"completion", "vision"}),
        ({"capabilities": []}, set()),
        ({"projector_info": {"clip.has_vision_encoder": True}}, {"completion", "vision"}),
        ({"projector_info": None}, {"completion"}),
        ({}, {"completion"}),
    ],
)
def test_what_a_model_can_is_read_off_its_description(shown: Any, capabilities: set[str]) -> None:
    assert shown_capabilities(shown) == capabilities


def test_a_model_that_cannot_see_is_refused_by_name() -> None:
    check_vision("seer", "seer:7b", frozenset({"completion", "vision"}))
    with pytest.raises(
        InvalidInputError, match=r"'llama' .* lacks the capability 'vision'.* has: completion"
    ) as refused:
        check_vision("llama", "llama2:7b", frozenset({"completion"}))
    assert refused.value.details["missing_capability"] == "vision"


class OldServer:
    """A client of a server whose list says nothing of capabilities."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def post(self, path: str, body: Any) -> Any:
        self.asked.append((path, body))
        return {"capabilities": ["completion", "vision"]}


def test_an_older_server_is_asked_once_for_each_digest() -> None:
    client = OldServer()
    catalogue = OllamaCatalogue(client)  # type: ignore[arg-type]

    async def look() -> None:
        for digest in ("one", "one", "two", "one"):
            assert "vision" in await catalogue.capabilities({"name": "seer:latest", "digest": digest})

    asyncio.run(look())
    assert client.asked == [("/api/show", {"model": "seer:latest"})] * 2


def test_a_caller_without_an_event_loop_is_told_the_same() -> None:
    with FakeOllama([FakeModel("seer", capabilities=("completion", "vision")), FakeModel("blind")]) as server:
        engine = OllamaEngine({"api_base": server.url})
        assert engine.infer("seer", [MESSAGE], {})["response"]
        with pytest.raises(InvalidInputError, match="lacks the capability 'vision'"):
            engine.infer("blind", [MESSAGE], {})
        assert "vlm" in engine.supported_tasks
