"""SlotModel: the forward passes of a causal language model over texts that lie in the slots of one cache."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from src.inference.engines.transformers.generation import text_config
from src.inference.engines.transformers.slot_attention import MixedPass, mixed
from src.inference.engines.transformers.slot_cache import Mixed, NextTokens, Packed, Part, SlotCache, Writing


class SlotModel:
    """Reads prompts into slots, and gives the logits of what comes next; `layers`: those of its cache."""

    def __init__(self, model: Any, layers: int) -> None:
        self.cache = SlotCache(layers)
        self._model = model
        self._config = text_config(model.config)
        self._device = model.device
        self._is_eager = self._config._attn_implementation == "eager"
        self._keeps = model._supports_logits_to_keep()

    def read(self, first: int, texts: Sequence[Sequence[int]], past: int = 0) -> torch.Tensor:
        """Reads whole texts into slots from the `first` on, or the next part of one, which has `past` tokens there.

        Returns the logits of each text's last token, texts x vocabulary.
        """
        writing = self._reading(first, texts, past)
        mask = self._apart(texts) if len(texts) > 1 else None
        return self._forward([_joined(texts)], [_positions(texts, past)], writing, mask, self._last(texts))

    def go_on(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Adds a token to each of the first slots, at its position; returns logits, slots x vocabulary."""
        self.cache.reserve(len(tokens), max(positions) + 1)
        writing = NextTokens(positions, self._device)
        logits = self._forward(
            [[token] for token in tokens], writing.positions[:, None], writing, self._reached(writing, positions)
        )
        return logits.transpose(0, 1)[0]

    def mix(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        texts: Sequence[Sequence[int]],
        past: int = 0,
    ) -> torch.Tensor:
        """Does both in one pass, what is read going into the slots behind; returns the logits of all, in this order."""
        count = len(tokens)
        self.cache.reserve(count, max(positions) + 1)
        prompts, following = self._reading(count, texts, past), NextTokens(positions, self._device)
        prompt_mask = self._apart(texts) if len(texts) > 1 else self._before(past, len(texts[0]))
        work = MixedPass(Mixed(following, prompts), self._reached(following, positions), prompt_mask)
        keep = torch.cat([torch.arange(count, device=self._device), self._last(texts) + count])
        with mixed(self._config, work):
            return self._forward(
                [[*tokens, *_joined(texts)]], [[*positions, *_positions(texts, past)]], work.writing, None, keep
            )

    def _reading(self, first: int, texts: Sequence[Sequence[int]], past: int) -> Part | Packed:
        self.cache.reserve(first + len(texts), past + max(len(text) for text in texts))
        if len(texts) > 1:
            return Packed(first, [len(text) for text in texts])
        return Part(first, past, past + len(texts[0]))

    def _forward(
        self,
        tokens: list[list[int]],
        positions: Any,
        writing: Writing,
        mask: torch.Tensor | None,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns logits: of one text those of the tokens to `keep`, tokens x vocabulary; else of all."""
        self.cache.writing = writing
        if isinstance(positions, list):
            positions = torch.tensor(positions, device=self._device)
        logits: torch.Tensor = self._model(
            input_ids=torch.tensor(tokens, device=self._device),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            return_dict=True,
            **({"logits_to_keep": keep} if self._keeps and keep is not None else {}),
        ).logits
        if keep is None:
            return logits
        return logits[0] if self._keeps else logits[0, keep]

    # ------------------------------------------------------------------ what sees what

    def _reached(self, writing: NextTokens, positions: Sequence[int]) -> torch.Tensor | None:
        """Returns the mask that hides the columns which a shorter text has not reached."""
        if min(positions) == max(positions):
            return None
        columns = torch.arange(writing.total, device=self._device)
        return self._mask((columns <= writing.positions[:, None])[:, None, None])

    def _apart(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Returns the mask by which each token of packed texts sees those before it in its own text."""
        lengths = torch.tensor([len(text) for text in texts], device=self._device)
        text = torch.arange(len(texts), device=self._device).repeat_interleave(lengths)
        return self._mask(torch.tril(text[:, None] == text)[None, None])

    def _before(self, past: int, more: int) -> torch.Tensor | None:
        """Returns the mask by which each token of a part sees those before it; None for a beginning."""
        if not past:
            return None
        columns = torch.arange(past + more, device=self._device)
        return self._mask((columns <= columns[past:, None])[None, None])

    def _mask(self, visible: torch.Tensor) -> torch.Tensor:
        """Returns a mask in the form that the model's attention takes; `visible`: texts x 1 x queries x columns."""
        if not self._is_eager:
            return visible
        hidden = torch.zeros(visible.shape, dtype=self._model.dtype, device=self._device)
        return hidden.masked_fill_(~visible, torch.finfo(self._model.dtype).min)

    def _last(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Returns the places of the texts' last tokens."""
        return torch.tensor(list(accumulate(len(text) for text in texts)), device=self._device) - 1


def _joined(texts: Sequence[Sequence[int]]) -> list[int]:
    return [token for text in texts for token in text]


def _positions(texts: Sequence[Sequence[int]], past: int) -> list[int]:
    return [position for text in texts for position in range(past, past + len(text))]
