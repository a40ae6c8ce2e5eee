"""Our options and inputs in Ollama's words, and its answers in ours. Source: Ollama's HTTP API."""

import base64
from typing import Any

from src.core.errors import WorkerDiedError
from src.inference.options import OllamaOptions, default_of
from src.inference.types import JsonObject

# Ours → Ollama's, where both mean the same.
_SAME = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "num_ctx": "num_ctx",
    "num_thread": "num_thread",
    "num_gpu": "num_gpu",
    "num_keep": "num_keep",
    "num_batch": "num_batch",
}
_TOP_LEVEL = ("keep_alive", "format", "think")
_DEFAULTS = {name: default_of(OllamaOptions, name) for name in ("temperature", "top_p", "top_k", "num_ctx")}
_MIROSTAT_DEFAULTS = {name: default_of(OllamaOptions, name) for name in ("mirostat_tau", "mirostat_eta")}
_REPEAT_PENALTY = default_of(OllamaOptions, "repeat_penalty")
_NUM_PREDICT = int(default_of(OllamaOptions, "num_predict"))
_IMPOSSIBLE = {
    "min_length": "Ollama cannot force a shortest answer",
    "num_beams": "Ollama has no beam search",
    "early_stopping": "Ollama has no beam search",
    "length_penalty": "Ollama has no beam search",
    "no_repeat_ngram_size": "Ollama cannot forbid repeated n-grams",
    "pad_token_id": "Ollama keeps to the model's own tokens",
    "eos_token_id": "Ollama keeps to the model's own tokens; 'stop' takes texts",
}


def request_body(model: str, inputs: Any, options: JsonObject, *, stream: bool = False) -> tuple[str, JsonObject]:
    """Returns the path and the JSON body for a prompt (`/api/generate`) or messages (`/api/chat`)."""
    body: JsonObject = {"model": model, "stream": stream, "options": model_options(options)}
    body.update({name: options[name] for name in _TOP_LEVEL if name in options})
    system = options.get("system")
    if isinstance(inputs, str):
        body["prompt"] = inputs
        if system is not None:
            body["system"] = system
        return "/api/generate", body
    messages = [_message(message) for message in inputs]
    body["messages"] = ([{"role": "system", "content": system}] if system is not None else []) + messages
    return "/api/chat", body


def shows_pictures(inputs: Any) -> bool:
    """Whether any of the messages carries pictures."""
    return not isinstance(inputs, str) and any(message.get("images") for message in inputs)


def _message(message: JsonObject) -> JsonObject:
    """Returns a message with its pictures (files) in base64."""
    if not message.get("images"):
        return message
    return {**message, "images": [base64.b64encode(file).decode("ascii") for file in message["images"]]}


def model_options(options: JsonObject) -> JsonObject:
    """Returns Ollama's `options`: what the caller set, and the documented defaults for the rest."""
    translated = {**_DEFAULTS, **(_MIROSTAT_DEFAULTS if options.get("mirostat") else {})}
    translated.update({_SAME[ours]: value for ours, value in options.items() if ours in _SAME})
    if options.get("do_sample") is False:
        translated["temperature"] = 0.0
    translated["num_predict"] = answer_tokens(options)
    repeat = options.get("repeat_penalty", options.get("repetition_penalty"))
    translated["repeat_penalty"] = _REPEAT_PENALTY if repeat is None else repeat
    if "stop" in options:
        stop = options["stop"]
        translated["stop"] = [stop] if isinstance(stop, str) else stop
    return translated


def answer_tokens(options: JsonObject) -> int:
    """Returns `num_predict`: the caller's own, else max_new_tokens, else max_length, else the default.

    Ollama cannot count the prompt first, so `max_length` bounds the answer alone; the smaller wins.
    """
    if "num_predict" in options:
        return int(options["num_predict"])
    bounds = [options[name] for name in ("max_new_tokens", "max_length") if name in options]
    return int(min(bounds)) if bounds else _NUM_PREDICT


def option_warnings(options: JsonObject) -> list[str]:
    """Returns a warning for each option set that Ollama cannot honour."""
    warnings = [
        f"option '{name}' has no effect: {why}"
        for name, why in _IMPOSSIBLE.items()
        if name in options and options[name] != default_of(OllamaOptions, name)
    ]
    if "num_predict" in options and ({"max_new_tokens", "max_length"} & options.keys()):
        warnings.append("option 'num_predict' is used; 'max_new_tokens' and 'max_length' have no effect beside it")
    if "repeat_penalty" in options and "repetition_penalty" in options:
        warnings.append("option 'repeat_penalty' is used; 'repetition_penalty' has no effect beside it")
    return warnings


def repeated(body: JsonObject, times: int) -> list[JsonObject]:
    """Returns a body so many times; with a seed each has the next one, or all would answer alike."""
    seed = body["options"].get("seed")
    if times == 1 or seed is None:
        return [body] * times
    return [{**body, "options": {**body["options"], "seed": seed + number}} for number in range(times)]


def together(raws: list[JsonObject]) -> JsonObject:
    """Returns several raw answers as one: all texts, the tokens added up, each warning once."""
    if len(raws) == 1:
        return raws[0]
    first = raws[0]
    tokens = sum(raw["metadata"]["tokens"] for raw in raws)
    warnings = list(dict.fromkeys(warning for raw in raws for warning in raw.get("warnings", [])))
    answer: JsonObject = {
        "response": [raw["response"] for raw in raws],
        "metadata": {**first["metadata"], "tokens": tokens},
    }
    return {**answer, "warnings": warnings} if warnings else answer


class StreamedAnswer:
    """Puts the lines of a streamed answer together: text and thoughts come in pieces, the counts with the last."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._last: JsonObject = {}

    def add(self, line: JsonObject) -> str:
        """Takes a line in and returns its piece of the text."""
        message = line.get("message")
        said, name = (message, "content") if isinstance(message, dict) else (line, "response")
        text: str = said.get(name) or ""
        self._texts.append(text)
        if thought := said.get("thinking"):
            self._thoughts.append(thought)
        self._last = line
        return text

    def whole(self) -> JsonObject:
        """Returns what Ollama would have answered without streaming; raises `WorkerDiedError` if the end is missing."""
        if not self._last.get("done"):
            raise WorkerDiedError("Ollama ended its answer before it was complete: ask again")
        text: JsonObject = {"thinking": "".join(self._thoughts)} if self._thoughts else {}
        message = self._last.get("message")
        if isinstance(message, dict):
            return {**self._last, "message": {**message, **text, "content": "".join(self._texts)}}
        return {**self._last, **text, "response": "".join(self._texts)}


def raw_answer(body: JsonObject, num_ctx: int) -> JsonObject:
    """Returns `{"response", "metadata", "warnings"?}` from Ollama's last line."""
    message = body.get("message")
    text = message.get("content", "") if isinstance(message, dict) else body.get("response", "")
    metadata: JsonObject = {
        "model": body.get("model"),
        "tokens": body.get("eval_count", 0),
        "finish_reason": body.get("done_reason") or "stop",
        "prompt_tokens": body.get("prompt_eval_count"),
    }
    thinking = message.get("thinking") if isinstance(message, dict) else body.get("thinking")
    if thinking:
        metadata["thinking"] = thinking
    raw: JsonObject = {"response": text, "metadata": metadata}
    if (body.get("prompt_eval_count") or 0) >= num_ctx:
        raw["warnings"] = [f"the prompt fills the context of {num_ctx} tokens and was probably cut; raise 'num_ctx'"]
    return raw
