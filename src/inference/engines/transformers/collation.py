"""Collation: encoded inputs of several requests as one batch of a model's inputs."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

Encoded = Mapping[str, Any]
"""A model's inputs for one request: tensors, and lists that processors give for media of different sizes."""


def structure(encoded: Encoded) -> Hashable:
    """Returns what encodings must have in common to be collated: names, kinds, and how far a decoder is told."""
    told = encoded.get("decoder_input_ids")
    return (tuple((name, _kind(encoded[name])) for name in sorted(encoded)), None if told is None else told.shape[1])


def token_count(encoded: Encoded) -> int:
    """Returns how many tokens the prompt has; 0 for a model that reads none."""
    ids = encoded.get("input_ids")
    return int(ids.shape[1]) if ids is not None else 0


def media_shape(encoded: Encoded) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of all that is not tokens, without what is counted (pictures, patches)."""
    names = sorted(name for name in encoded if not _is_of_tokens(name, encoded))
    return tuple(tuple(encoded[name].shape[1:]) for name in names if isinstance(encoded[name], torch.Tensor))


def collated(encodings: Sequence[Encoded], *, pad_token: int = 0, left: bool = False) -> dict[str, Any]:
    """Returns encodings of one structure as one batch.

    Tokens are padded to the longest, on the left for a decoder that writes on from them, with a mask that says so. All
    else is filled up with zeros at the ends of its dimensions and put one behind the other.
    """
    if len(encodings) == 1:
        return dict(encodings[0])
    whole: dict[str, Any] = {}
    for name in encodings[0]:
        values = [encoded[name] for encoded in encodings]
        if not isinstance(values[0], torch.Tensor):
            whole[name] = [one for value in values for one in value] if isinstance(values[0], list) else values[0]
        elif all(_is_of_tokens(name, encoded) for encoded in encodings):
            filling = pad_token if name == "input_ids" else 0
            whole[name] = _joined(values, filling, left=left)
        else:
            whole[name] = _joined(values)
    if "input_ids" in whole and "attention_mask" not in whole and len({token_count(each) for each in encodings}) > 1:
        whole["attention_mask"] = _joined([torch.ones_like(each["input_ids"]) for each in encodings], left=left)
    return whole


def _is_of_tokens(name: str, encoded: Encoded) -> bool:
    """Whether an input has an entry for each token of the prompt."""
    value, ids = encoded[name], encoded.get("input_ids")
    if ids is None or not isinstance(value, torch.Tensor) or value.is_floating_point() or name.startswith("pixel"):
        return False
    return bool(value.ndim > 1 and value.shape[:2] == ids.shape)


def _joined(values: Sequence[torch.Tensor], filling: int = 0, *, left: bool = False) -> torch.Tensor:
    """Returns tensors one behind the other, all but the first dimension filled up to the largest."""
    if len({value.shape[1:] for value in values}) > 1:
        most = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
        values = [_padded(value, most, filling, left=left) for value in values]
    return torch.cat(list(values))


def _padded(value: torch.Tensor, most: Sequence[int], filling: int, *, left: bool) -> torch.Tensor:
    missing = [size - own for size, own in zip(most, value.shape, strict=True)]
    padding = [side for more in missing[:1:-1] for side in (0, more)]
    # What stands in further dimensions, such as the pictures that a token may look at, is counted from the left.
    padding += [missing[1], 0] if left else [0, missing[1]]
    return torch.nn.functional.pad(value, padding, value=filling)


def _kind(value: Any) -> Hashable:
    return (str(value.dtype), value.ndim) if isinstance(value, torch.Tensor) else type(value).__name__
