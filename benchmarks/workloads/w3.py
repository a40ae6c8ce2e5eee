"""W3: a Llama of 15 M parameters, greedy: one caller, eight, a mixed load, the first token; against `generate`."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.abandoning import abandoned
from benchmarks.bench import Bench, Unit
from benchmarks.comparing import Pair, interleaved
from benchmarks.direct.pipe import Direct, direct
from benchmarks.models import NEW_TOKENS, inputs
from benchmarks.peers.catalogue import Peer, serving_task
from benchmarks.registering import register
from benchmarks.serving import Server, ours

PATH = "/inference/infer"
NAME = "llama"
RATE = "tokens_per_second"
FIRST = "first_piece_p50_ms"
TOGETHER = 8
GONE = 50
_WARMUP = 1.0
_LIMIT = "benchmarks.direct.generate"
_SPAN = 0.4
"""The mixed load arrives within this part of the time that its limit takes: a server has always work."""

Prompt = dict[str, Any]
Ask = Callable[[Prompt, bool], Any]


def units(bench: Bench) -> list[Unit]:
    """Returns the service and the peers."""
    return [
        Unit("ours", _seconds(bench) + 40, partial(_ours, bench)),
        *(
            Unit(peer.title, _seconds(bench.shorter()) + 70, partial(_peer, bench.shorter(), peer))
            for peer in serving_task(bench, "generate")
        ),
    ]


def _seconds(bench: Bench) -> float:
    return bench.rounds * (6 * bench.seconds + 16)


def body(prompt: Prompt, stream: bool) -> dict[str, Any]:
    """Returns a request to our service."""
    options = {"max_new_tokens": prompt["new_tokens"], "min_length": 0, "do_sample": False}
    return {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": NAME,
        "data": {"inputs": prompt["text"]},
        "options": {**options, "stream": True} if stream else options,
    }


def _ours(bench: Bench) -> dict[str, Any]:
    with ours(bench.fresh("w3")) as server, direct(_LIMIT, str(bench.models)) as limit:
        register(server, NAME, bench.models / "llama", "text-generation", "transformers")
        load = _Load(bench, server, PATH, ("ours", "ours_streamed"), body, limit)
        found = load.measured()
        return {**found, "abandoned": abandoned(server, PATH, load.fixed, body, lambda: load.fixed_load(TOGETHER))}


def _peer(bench: Bench, peer: Peer) -> dict[str, Any]:
    def ask(prompt: Prompt, stream: bool) -> Any:
        return {**peer.call("generate", prompt).body, **({"stream": True} if stream else {})}

    with peer.running("generate", bench) as server, direct(_LIMIT, str(bench.models)) as limit:
        path = peer.call("generate", {"text": "", "new_tokens": 1}).path
        return {
            "version": peer.version,
            **_Load(bench, server, path, ("openai", "openai_streamed"), ask, limit).measured(),
        }


class _Load:
    """The measures of W3 on one server, beside the limit; answers are compared with what `generate` says."""

    def __init__(
        self, bench: Bench, server: Server, path: str, forms: tuple[str, str], ask: Ask, limit: Direct
    ) -> None:
        self._bench, self._server, self._path, self._ask, self._limit = bench, server, path, ask, limit
        self._forms = forms
        prompts = inputs(bench.models, "prompts")
        self.fixed: list[Prompt] = [{"text": text, "new_tokens": NEW_TOKENS} for text in prompts["fixed"]]
        self._mixed: list[Prompt] = prompts["mixed"]
        self._expected = bench.once("W3 texts", lambda: limit.ask("expected", batch=TOGETHER))
        span = bench.once("W3 span", lambda: {"seconds": limit.ask("mixed", batch=TOGETHER)["seconds"]})["seconds"]
        self._arrivals = _arrivals(len(self._mixed), _SPAN * span)

    def measured(self) -> dict[str, Any]:
        """Returns all measures, the server's beside the limit's."""
        self._server.post(self._path, self._ask(self.fixed[0], False))  # loads the model
        seconds = self._bench.seconds

        def loop(batch: int) -> dict[str, Any]:
            return self._limit.ask("loop", batch=batch, seconds=seconds)

        pairs = {
            "c1": Pair(lambda: self.fixed_load(1), RATE, lambda: loop(1)),
            f"c{TOGETHER}": Pair(lambda: self.fixed_load(TOGETHER), RATE, lambda: loop(TOGETHER)),
            "mixed": Pair(self._mixed_load, RATE, lambda: self._limit.ask("mixed", batch=TOGETHER)),
            "first token c1": Pair(
                lambda: self._streamed(1), FIRST, lambda: self._limit.ask("first", batch=1), is_time=True
            ),
            f"first token c{TOGETHER}": Pair(
                lambda: self._streamed(TOGETHER), FIRST, lambda: self._limit.ask("first", batch=TOGETHER), is_time=True
            ),
        }
        return interleaved(pairs, self._bench.rounds)

    def fixed_load(self, concurrency: int) -> dict[str, Any]:
        """Puts so many callers on the server who all want as many tokens."""
        return self._read(self.fixed, "fixed", concurrency=concurrency, seconds=self._bench.seconds, warmup=_WARMUP)

    def _streamed(self, concurrency: int) -> dict[str, Any]:
        plan = {"concurrency": concurrency, "seconds": self._bench.seconds, "warmup": _WARMUP}
        return self._read(self.fixed, "fixed", stream=True, **plan)

    def _mixed_load(self) -> dict[str, Any]:
        return self._read(self._mixed, "mixed", arrivals=self._arrivals)

    def _read(self, prompts: Sequence[Prompt], kind: str, *, stream: bool = False, **plan: Any) -> dict[str, Any]:
        """Puts load on and counts: raises `RuntimeError` where an answer has not the tokens that were asked for."""
        bodies = [self._ask(prompt, stream) for prompt in prompts]
        figures = self._server.load(self._path, bodies, form=self._forms[stream], texts=True, **plan)
        texts = figures.pop("texts")
        short = [(number, tokens) for number, _, tokens in texts if tokens != prompts[number]["new_tokens"]]
        if short:
            raise RuntimeError(f"{len(short)} of {len(texts)} answers have another number of tokens: {short[:5]}")
        same = sum(text == self._expected[kind][number] for number, text, _ in texts)
        return {**figures, "texts_like_generate": same / len(texts)}


def _arrivals(count: int, span: float) -> list[float]:
    """Returns moments of a Poisson process, the same for every server: the first is 0, the last `span` seconds."""
    chance = random.Random(1)
    moments = [0.0]
    for _ in range(count - 1):
        moments.append(moments[-1] + chance.expovariate(1.0))
    return [moment * span / moments[-1] for moment in moments]
