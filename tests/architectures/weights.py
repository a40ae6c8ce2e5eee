"""Random weights that let a tiny model hear and see: its answer has to depend on all of its input."""

import math
from pathlib import Path
from typing import Any

import torch

_KEPT = ("A_log", "dt_proj", "dt_bias", "time_decay", "time_first", "rotary", "inv_freq", "lambda_p")


def seeded(seed: int = 0) -> None:
    """Fixes the random numbers that the next model is made of."""
    torch.manual_seed(seed)


def save(model: Any, folder: Path, *parts: Any, gain: float = 1.0) -> None:
    """Writes a model with livelier weights, and its processor or tokenizer and whatever else goes with it."""
    enliven(model, gain)
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)


@torch.no_grad()  # type: ignore[untyped-decorator]
def enliven(model: Any, gain: float = 1.0) -> None:
    """Scales small matrices up to unit variance times `gain`, and fills zeros, so that signals pass every layer.

    Models start from weights of 0.02: ten layers later little is left of an input. Vectors, biases and the
    parameters of recurrences keep what their architecture gave them, gates that start shut are opened. The output
    layer is scaled down too: where one token has all the probability, nothing moves the numbers.
    """
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or any(part in name for part in _KEPT):
            continue
        if weight.dim() < 2:
            if "gate" in name and not weight.any():
                weight.fill_(0.5)
            continue
        wanted = gain / math.sqrt(_inputs(name, weight))
        spread = float(weight.std())
        if spread == 0.0:
            weight.normal_(std=wanted)
        elif spread < wanted or (output is not None and weight is output.weight):
            weight.mul_(wanted / spread)


@torch.no_grad()  # type: ignore[untyped-decorator]
def hush(model: Any, token: int | None) -> None:
    """Makes a token unlikely: where weights are tied, an answer that begins with it would end with it at once."""
    output = model.get_output_embeddings()
    if token is not None and output is not None and token < output.weight.shape[0]:
        output.weight[token] *= 0.1


def _inputs(name: str, weight: torch.Tensor) -> int:
    """Returns how many inputs each output of a matrix or kernel adds up."""
    if weight.dim() == 3 and "expert" in name:
        return int(weight.shape[-1])
    return max(1, math.prod(weight.shape[1:]))
