"""What is in the answers of the different servers: the text that was generated, and how many tokens it has."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """The text of an answer and how many tokens the server says that it generated."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Form:
    """How a server answers: `read` takes a body; `first_piece` is found once there is a first piece of text."""

    read: Callable[[bytes], Said]
    first_piece: re.Pattern[bytes] | None = None


def _ours(body: bytes) -> Said:
    result = json.loads(body)["result"]
    return Said(result["generated_text"], result["metadata"]["tokens"])


def _ours_streamed(body: bytes) -> Said:
    pieces, last = [], {}
    for event, data in _events(body):
        if event == "delta":
            pieces.append(json.loads(data)["text"])
        elif event == "result":
            last = json.loads(data)
        else:
            raise ValueError(f"event '{event}': {data[:500]}")
    text = last["result"]["generated_text"]
    if "".join(pieces) != text:
        raise ValueError(f"the pieces are not the answer: {''.join(pieces)!r} {text!r}")
    return Said(text, last["usage"]["completion_tokens"])


def _completion(body: bytes) -> Said:
    answer = json.loads(body)
    choice = answer["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return Said(text or "", answer["usage"]["completion_tokens"])


def _completion_streamed(body: bytes) -> Said:
    pieces, tokens = [], 0
    for _, data in _events(body):
        if data == "[DONE]":
            break
        chunk = json.loads(data)
        if "error" in chunk:
            raise ValueError(str(chunk["error"]))
        for choice in chunk.get("choices") or []:
            pieces.append((choice["delta"].get("content") if "delta" in choice else choice["text"]) or "")
        tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    return Said("".join(pieces), tokens)


def _ollama(body: bytes) -> Said:
    lines = [json.loads(line) for line in body.splitlines() if line]
    text = "".join(line["message"]["content"] if "message" in line else line["response"] for line in lines)
    return Said(text, lines[-1]["eval_count"])


FORMS: dict[str, Form] = {
    "plain": Form(lambda body: Said("", 0)),
    "ours": Form(_ours),
    "ours_streamed": Form(_ours_streamed, re.compile(rb"event: delta")),
    "openai": Form(_completion),
    "openai_streamed": Form(_completion_streamed, re.compile(rb'"(?:content|text)": ?"[^"]')),
    "ollama": Form(_ollama),
    "ollama_streamed": Form(_ollama, re.compile(rb'"(?:content|response)": ?"[^"]')),
}


def _events(body: bytes) -> Iterator[tuple[str, str]]:
    """Yields name and data of server-sent events."""
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        name, data = "message", list[Any]()
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            if field == "event":
                name = value.strip()
            elif field == "data":
                data.append(value.removeprefix(" "))
        if data:
            yield name, "\n".join(data)
