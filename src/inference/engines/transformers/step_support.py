"""Which models can be run step by step, many requests at once, with the answers that `generate` gives each alone.

What class and config tell is looked at before the first request: whether the library's own loop runs the model without
detours, with a cache that keeps every token. What padding and neighbours do to a model's answers none of that tells: it
is tried, on two short texts, when two requests first meet.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicLayer
from transformers.generation.configuration_utils import GenerationMode

from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.generation import Begun, Generator, Plan, Prompt, text_config
from src.inference.engines.transformers.slot_model import SlotModel

logger = logging.getLogger(__name__)

_ARGUMENTS = {"input_ids", "attention_mask", "position_ids", "past_key_values"}
_OWN_WAYS = (
    "generate",
    "prepare_inputs_for_generation",
    "create_masks_for_generate",
    "_prepare_cache_for_generation",
    "_prepare_position_ids_for_generation",
    "_update_model_kwargs_for_generation",
    "_prefill",
    "_sample",
)
# Their own way matters only for rotary positions that are stretched, and those are refused by themselves.
_HARMLESS = ("Phi3ForCausalLM", "PhimoeForCausalLM", "Phi4MultimodalForCausalLM")
# They depend on the longest text of a batch.
_STRETCHED = ("dynamic", "longrope")
# What models have set that look at near tokens alone, though their cache keeps all.
_NEAR = ("window_size", "attention_window", "attention_chunk_size", "block_size")
_MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
_TRIED = (5, 12)
"""Tokens of the texts that are tried; the last of each is what it goes on with."""


class StepSupport:
    """What is known of one model, found out when it is first asked for."""

    def __init__(self, generator: Generator) -> None:
        self._name, self._model, self._generator = generator.name, generator.model, generator
        self._layers: int | None = None
        self._together: bool | None = None
        self._mixes: bool | None = None
        self._alone: dict[int, torch.Tensor] = {}

    @property
    def layers(self) -> int:
        """The layers of the model's cache; 0 where it cannot be run step by step."""
        if self._layers is None:
            problem = next(self._problems(), None)
            if problem is not None:
                self._layers = 0
                logger.info("model '%s' runs one request after the other: %s", self._name, problem)
        return self._layers or 0

    @property
    def together(self) -> bool:
        """Whether several requests can be inside at once."""
        if self._together is None:
            self._together = self._bears("requests of different lengths", self._apart)
        return self._together

    @property
    def mixes(self) -> bool:
        """Whether prompts can be read in the same pass in which others get their next tokens."""
        if self._mixes is None:
            # Only attention that is looked up at each pass can be told what is whose.
            able = self._model._supports_attention_backend and self._attention == "sdpa"
            self._mixes = able and self.together and self._bears("prompts beside answers", self._mixed)
        return self._mixes

    # ------------------------------------------------------------------ what class and config tell

    def _problems(self) -> Iterator[str]:
        kind, config = type(self._model), text_config(self._model.config)
        if self._model.config.is_encoder_decoder:
            yield "it has an encoder"
        if self._model.is_remote_code():
            yield "its code is its own"
        if lacking := _ARGUMENTS.difference(inspect.signature(self._model.forward).parameters):
            yield f"it does not take {', '.join(sorted(lacking))}"
        if kind.__name__ not in _HARMLESS and (own := _overridden(kind)):
            yield f"it has a {', '.join(own)} of its own"
        if getattr(self._model, "_is_stateful", False):
            yield "it keeps a state"
        if self._attention not in ("sdpa", "eager"):
            yield f"its attention is {self._attention}"
        yield from (f"its config has {name}" for name in _NEAR if getattr(config, name, None))
        if _is_stretched(getattr(config, "rope_parameters", None)):
            yield "its rotary positions depend on the longest text"
        yield from self._generation_problems()

    def _generation_problems(self) -> Iterator[str]:
        """Yields what the library's own preparations for a short prompt tell."""
        for settings in ({"do_sample": False}, {"do_sample": True, "top_k": 50}):
            try:
                begun = self._begun(settings)
            except Exception as exc:
                # Whatever a library raises at this prompt, real ones go by generate.
                yield f"{type(exc).__name__}: {exc}"
                return
            if begun.config.get_generation_mode() not in _MODES or begun.config.guidance_scale not in (None, 1.0):
                yield "its generation config asks for another way to generate"
            if type(begun.cache) is not DynamicCache or begun.cache.offloading:
                yield f"its cache is {type(begun.cache).__name__}"
            elif kinds := {type(layer).__name__ for layer in begun.cache.layers if type(layer) is not DynamicLayer}:
                yield f"its cache has layers of {', '.join(sorted(kinds))}"
            else:
                self._layers = len(begun.cache.layers)

    def _begun(self, settings: Mapping[str, Any]) -> Begun:
        tokens = torch.tensor([self._text(2)], device=self._model.device)
        prompt = Prompt({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, text_tokens=2, offset=2)
        config = GenerationConfig(max_new_tokens=1, pad_token_id=0, use_cache=True, **settings)
        return self._generator.begin(Plan(prompt, config, [], None, False))

    # ------------------------------------------------------------------ what is tried

    @property
    def _attention(self) -> str:
        return str(text_config(self._model.config)._attn_implementation)

    def _bears(self, what: str, logits: Callable[[Sequence[list[int]]], list[torch.Tensor]]) -> bool:
        """Whether two texts have the logits that each has alone; `logits`: texts → those that each has in the slots."""
        texts = [self._text(length) for length in _TRIED]
        trial = BatchTrial(self._name, self._model)

        @torch.inference_mode()  # type: ignore[untyped-decorator]
        def outputs(tried: Sequence[list[int]]) -> list[torch.Tensor]:
            return [self._read_alone(tried[0])] if len(tried) == 1 else logits(tried)

        try:
            return len(next(trial.batches(texts, {what: len}, outputs))) == len(texts)
        except Exception:
            # Out of memory, say: one by one the requests can still have their answers.
            logger.warning("model '%s' does not run %s together", self._name, what, exc_info=True)
            return False

    def _text(self, length: int) -> list[int]:
        """Returns tokens from the middle of the vocabulary, where none has a meaning of its own."""
        size = text_config(self._model.config).vocab_size
        return [(size // 2 + 5 * place) % size for place in range(length)]

    def _read_alone(self, text: list[int]) -> torch.Tensor:
        """Returns the logits of a text's last token, as the model reads it without a cache."""
        if len(text) not in self._alone:
            tokens = torch.tensor([text], device=self._model.device)
            positions = torch.arange(len(text), device=self._model.device)[None]
            output = self._model(input_ids=tokens, position_ids=positions, use_cache=False, return_dict=True)
            self._alone[len(text)] = output.logits[:, -1]
        return self._alone[len(text)]

    def _apart(self, texts: Sequence[list[int]]) -> list[torch.Tensor]:
        """Returns the logits of texts that are read together and go on together."""
        slots = SlotModel(self._model, self.layers)
        slots.read(0, [text[:-1] for text in texts])
        return list(slots.go_on([text[-1] for text in texts], [len(text) - 1 for text in texts]).split(1))

    def _mixed(self, texts: Sequence[list[int]]) -> list[torch.Tensor]:
        """Returns the logits of a text that goes on while others are read."""
        slots = SlotModel(self._model, self.layers)
        first, *others = texts
        slots.read(0, [first[:-1]])
        return list(slots.mix(first[-1:], [len(first) - 1], others).split(1))


def _overridden(kind: type) -> list[str]:
    return [name for name in _OWN_WAYS if getattr(kind, name, None) is not getattr(GenerationMixin, name, None)]


def _is_stretched(parameters: Any) -> bool:
    """Whether rotary positions, of all layers or by kinds of layers, are of a stretched type."""
    if not isinstance(parameters, Mapping):
        return False
    if parameters.get("rope_type") in _STRETCHED:
        return True
    return any(_is_stretched(value) for value in parameters.values())
