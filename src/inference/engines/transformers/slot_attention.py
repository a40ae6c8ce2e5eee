"""Attention for one forward pass over the next tokens of running texts and over prompts that are read.

All layers but attention treat each token by itself, so that they can take both as one text: the weights are read once,
not twice. Attention is told apart here, under a name of its own that a model's config has while such a pass lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from src.inference.engines.transformers.slot_cache import Mixed

_NAME = "aiml_slots"


@dataclass(frozen=True, slots=True)
class MixedPass:
    """What is written in a pass, and the masks of its two parts: texts x 1 x queries x columns, None: all is seen."""

    writing: Mixed
    following_mask: torch.Tensor | None
    prompt_mask: torch.Tensor | None


_pass: ContextVar[MixedPass | None] = ContextVar("aiml_mixed_pass", default=None)


@contextmanager
def mixed(config: Any, work: MixedPass) -> Iterator[None]:
    """Has the attention of the model with this config treat what runs inside the block as a mixed pass."""
    before, token = config._attn_implementation, _pass.set(work)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _pass.reset(token)


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attends each next token to its own slot, and prompts to themselves.

    `query`: 1 x heads x tokens x width; `key`, `value`: of the prompts. Returns 1 x tokens x heads x width.
    """
    work = _pass.get()
    if work is None:
        raise RuntimeError("slot attention outside of a mixed pass")
    count = work.writing.following.count
    keys, values = work.writing.attended
    work.writing.attended.clear()
    rows = query[:, :, :count].permute(2, 1, 0, 3)
    following, _ = sdpa_attention_forward(module, rows, keys, values, work.following_mask, **kwargs)
    prompts, _ = sdpa_attention_forward(module, query[:, :, count:], key, value, work.prompt_mask, **kwargs)
    return torch.cat([following.transpose(0, 1), prompts], dim=1), None


AttentionInterface.register(_NAME, slot_attention)
