"""What the fake model says: text and vectors that are functions of the request alone."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_VOCABULARY = (
    "one no the blue short question with a slow weights river because fast stone red words stops tree model "
    "light its cat dog sun moon here are yes why and green house"
)
WORDS = _VOCABULARY.split()

_TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")


def fingerprint(value: Any) -> str:
    """Returns a digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def words(key: str) -> Iterator[str]:
    """Yields words without end, always the same for the same key."""
    for block in itertools.count():
        for byte in hashlib.sha256(f"{key} {block}".encode()).digest():
            yield WORDS[byte % len(WORDS)]


def answer_tokens(key: str, shortest: int, form: Any) -> list[str]:
    """Returns an answer as tokens, `shortest` up to twice as many; `form` is Ollama's `format`, or None."""
    length = shortest + _number(key, max(shortest, 1))
    source = words(key)
    if form is None:
        return [f" {word}" for word in itertools.islice(source, length)]
    plain = {"answer": " ".join(itertools.islice(source, length))}
    return _TOKEN.findall(json.dumps(plain if form == "json" else instance(form, source)))


def instance(schema: Mapping[str, Any], source: Iterator[str]) -> Any:
    """Returns a value that fits a JSON schema: objects, arrays, enumerations and the plain types."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: instance(part, source) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema.get("items", {"type": "string"}), source)]
        case "integer" | "number":
            return len(next(source))
        case "boolean":
            return len(next(source)) % 2 == 0
        case "null":
            return None
    return " ".join(itertools.islice(source, 3))


def token_id(token: str) -> int:
    """Returns the number of a token in a vocabulary as small as the recorded model's."""
    return 259 + _number(token.strip(), 227)


def vector(text: str, length: int) -> list[float]:
    """Returns a vector for a text: the sum of its words' vectors, so that texts that share words are near."""
    parts = [hashlib.shake_256(word.encode()).digest(length) for word in text.split() or [text]]
    return [sum(place) / 128 - len(parts) for place in zip(*parts, strict=True)]


def unit(values: Sequence[float]) -> list[float]:
    """Returns a vector of length 1 in the same direction."""
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / norm for value in values]


class StopCutter:
    """Cuts an answer before the first stop word, also where the word arrives in several tokens."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, token: str) -> str:
        """Takes a token; returns the text that may leave, holding back what could begin a stop word."""
        text = self._held + token
        places = [place for word in self._stop if (place := text.find(word)) >= 0]
        self.stopped = bool(places)
        keep = min(places) if places else len(text) - self._beginning_of_stop(text)
        self._held = "" if places else text[keep:]
        return text[:keep]

    def rest(self) -> str:
        """Returns what is still held back."""
        return self._held

    def _beginning_of_stop(self, text: str) -> int:
        longest = max((len(word) for word in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(word.startswith(text[-length:]) for word in self._stop):
                return length
        return 0


def _number(text: str, below: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % below
