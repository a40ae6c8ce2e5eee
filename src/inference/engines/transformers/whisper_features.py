"""What Whisper hears of a long recording: its spectrogram, made in pieces, so that it can be stopped between them."""

from typing import Any

import torch

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.waveform import Samples

_PIECE_SECONDS = 30
# Eight powers of ten below the loudest, as the extractor scales them: what is quieter counts as this.
_RANGE = 2.0


def long_features(extractor: Any, samples: Samples) -> dict[str, torch.Tensor]:
    """Returns `input_features` (1 x mels x frames) and `attention_mask`, as the extractor makes them of the whole.

    A frame depends on the samples around it, and by its floor on the loudest of all. Raises `CancelledError` once
    nobody waits for the answer.
    """
    hop = int(extractor.hop_length)
    size = _PIECE_SECONDS * int(extractor.sampling_rate) // hop * hop
    context = (int(extractor.n_fft) // 2 // hop + 2) * hop
    pieces = []
    for start in range(0, len(samples), size):
        if stop_requested():
            raise CancelledError("transcription was stopped")
        before, end = min(context, start), min(start + size, len(samples))
        features = extractor(
            samples[start - before : end + context],
            sampling_rate=extractor.sampling_rate,
            truncation=False,
            padding="longest",
            return_tensors="pt",
        )["input_features"][0]
        first = before // hop
        pieces.append(features[:, first : first + (end - start) // hop])
    whole = torch.cat(pieces, dim=1)
    whole = torch.maximum(whole, whole.max() - _RANGE)
    return {"input_features": whole[None], "attention_mask": torch.ones(1, whole.shape[1], dtype=torch.int32)}
