"""Whether recordings of different lengths may be heard together."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from src.inference.engines.transformers.batch_forward import has_mask
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, media_shape
from src.inference.engines.transformers.waveform import Samples

# Encoders halve their frames several times, and what padding does to the last one depends on what is left over: these
# are 41, 53 … frames of 10 ms, unlike in what is left over by 2, 4, 8 and 16.
_TRIED_SECONDS = (0.41, 0.53, 0.67, 0.8, 0.94, 1.6)
# What architectures call the method that tells how many frames so much input makes.
_FRAME_COUNTS = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")


class SoundLengths:
    """What one model and what prepares its inputs do with recordings that are not equally long.

    `aspect`: the words by which the model's trial knows lengths; `encode`: samples → inputs.
    """

    def __init__(self, trial: BatchTrial, aspect: str, encode: Callable[[Samples], Encoded], rate: int) -> None:
        self._trial, self._aspect, self._encode, self._rate = trial, aspect, encode, rate

    def example(self) -> list[Encoded]:
        """Returns encoded sounds so unlike in length that a model which does not bear it shows it."""
        return [self._encode(_sound(seconds, self._rate)) for seconds in _TRIED_SECONDS]

    @property
    def matter(self) -> bool:
        """Whether only recordings of one length can be heard together, as far as that is known."""
        return not (self._encoded_alike and self._trial.bears(self._aspect))

    @cached_property
    def _encoded_alike(self) -> bool:
        """Whether encodings are of one size whatever the length, or tell what of them is padding."""
        short, long = (self._encode(_sound(seconds, self._rate)) for seconds in _TRIED_SECONDS[-2:])
        return media_shape(short) == media_shape(long) or has_mask(short)


def frame_count(model: Any, encoded: Encoded) -> int | None:
    """Returns how many frames a model's encoder makes of a sound that it hears alone; None where it does not say."""
    length = next(value.shape[1] for name, value in encoded.items() if "mask" not in name)
    for owner in (model, getattr(model, "encoder", None)):
        for name in _FRAME_COUNTS:
            if (counted := getattr(owner, name, None)) is not None:
                return int(counted(torch.tensor([length])))
    return None


def _sound(seconds: float, rate: int) -> Samples:
    """Returns a made-up sound, always the same, that is nowhere quiet."""
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)).astype(np.float32)
