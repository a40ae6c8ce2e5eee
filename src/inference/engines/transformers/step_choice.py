"""How the next tokens of several requests are chosen: each by its own options, in as few operations as may be.

The library's own logits processors do the work, so that a request gets the tokens that `generate` would choose for it.
Requests that differ in nothing but their text share each operation: those without options one argmax, those that are
drawn alike their temperature, top_k and top_p.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation import logits_process

from src.inference.engines.transformers.attempts import attempted

_WARPERS = (
    logits_process.TemperatureLogitsWarper,
    logits_process.TopKLogitsWarper,
    logits_process.TopPLogitsWarper,
    logits_process.MinPLogitsWarper,
    logits_process.TypicalLogitsWarper,
    logits_process.EpsilonLogitsWarper,
)
"""Those that look at the scores of one token alone, at each text's by themselves."""
_SHORTEST = (logits_process.MinLengthLogitsProcessor, logits_process.MinNewTokensLengthLogitsProcessor)
"""Those that keep an answer from ending, until it has its least number of tokens."""


class Choice:
    """How the tokens of one request are chosen.

    `shortest`: tokens that its answer must have; `generator`: where its draws come from, None if it draws none.
    """

    def __init__(self, processors: LogitsProcessorList, shortest: int, generator: torch.Generator | None) -> None:
        self._shortest, self.generator = shortest, generator
        warpers = _last(processors, _WARPERS) if generator is not None else []
        self._own = LogitsProcessorList(processors[: len(processors) - len(warpers)])
        self._warpers = LogitsProcessorList(warpers)
        self.alike: Hashable = None if generator is None else tuple(_named(warper) for warper in warpers)
        """What requests have in common whose tokens are chosen in one operation; None: the likeliest is taken."""

    def reads_text(self, made: int) -> bool:
        """Whether the text so far has a say, `made` tokens of the answer being there."""
        if self._own and made >= self._shortest:
            self._own = LogitsProcessorList(each for each in self._own if not isinstance(each, _SHORTEST))
        return bool(self._own)

    def processed(self, text: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Returns the scores (1 x vocabulary) that a text (1 x tokens) leaves of its logits."""
        scores: torch.Tensor = self._own(text, logits)
        return scores

    def likelihoods(self, scores: torch.Tensor) -> torch.Tensor:
        """Returns how likely each token is to be drawn, for the scores of requests that are alike."""
        for warper in self._warpers:
            scores = warper(None, scores)
        return torch.softmax(scores, dim=-1)


class Chooser:
    """Chooses the next tokens of all requests of one model; `device`: where its logits are."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._unseeded = torch.Generator(device)
        self._unseeded.seed()

    def generator(self, seed: int | None) -> torch.Generator:
        """Returns where the draws of a request come from; those without a seed share one."""
        if seed is None:
            return self._unseeded
        return torch.Generator(self._device).manual_seed(seed)

    def choose(
        self, logits: torch.Tensor, choices: Sequence[Choice], texts: Sequence[torch.Tensor | None]
    ) -> list[int | Exception]:
        """Returns the next token of each request, or what its own options raised.

        `logits`: requests x vocabulary, float32; `texts`: prompt and answer so far, for those whose choice needs them.
        """
        scores: dict[int, torch.Tensor | Exception] = {
            place: attempted(choice.processed, text, logits[place : place + 1])
            for place, (choice, text) in enumerate(zip(choices, texts, strict=True))
            if text is not None
        }
        found: dict[int, int | Exception] = {
            place: failed for place, failed in scores.items() if isinstance(failed, Exception)
        }
        alike: dict[Hashable, list[int]] = {}
        for place, choice in enumerate(choices):
            if place not in found:
                alike.setdefault(choice.alike, []).append(place)
        for places in alike.values():
            untouched = not scores and len(places) == len(choices)
            rows = logits if untouched else torch.cat([scores.get(p, logits[p : p + 1]) for p in places])
            found |= zip(places, _chosen(rows, [choices[place] for place in places]), strict=True)
        return [found[place] for place in range(len(choices))]


def _chosen(scores: torch.Tensor, choices: Sequence[Choice]) -> Sequence[int | Exception]:
    """Returns the next tokens of requests that are alike."""
    if choices[0].generator is None:
        best: list[int] = scores.argmax(-1).tolist()
        return best
    likelihoods = attempted(choices[0].likelihoods, scores)
    if isinstance(likelihoods, Exception):
        return [likelihoods] * len(choices)
    sources: dict[torch.Generator, list[int]] = {}
    for place, choice in enumerate(choices):
        sources.setdefault(choice.generator, []).append(place)
    found: dict[int, int | Exception] = {}
    for generator, places in sources.items():
        drawn = attempted(_draws, likelihoods[places] if len(sources) > 1 else likelihoods, generator)
        found |= zip(places, [drawn] * len(places) if isinstance(drawn, Exception) else drawn, strict=True)
    return [found[place] for place in range(len(choices))]


def _draws(likelihoods: torch.Tensor, generator: torch.Generator) -> list[int]:
    tokens: list[int] = torch.multinomial(likelihoods, num_samples=1, generator=generator)[:, 0].tolist()
    return tokens


def _last(processors: Sequence[Any], kinds: tuple[type, ...]) -> list[Any]:
    """Returns the processors at the end of a list that are all of certain kinds."""
    place = len(processors)
    while place and type(processors[place - 1]) in kinds:
        place -= 1
    return list(processors[place:])


def _named(warper: Any) -> tuple[Hashable, ...]:
    values: Iterable[tuple[str, Any]] = sorted(vars(warper).items())
    return (type(warper), *values)
