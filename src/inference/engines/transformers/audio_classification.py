"""Audio classification with any model that the library maps for it."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.unused_options import unused_by_classification
from src.inference.engines.transformers.waveform import Samples, samples_of, sampling_rate_of, spread
from src.inference.types import JsonObject

# Models without a bound of their own hear this much at once: attention costs the square of it.
_WINDOW_SECONDS = 30.0


class AudioClassificationRunner(Runner):
    """A model that gives a sound a score for each of its labels.

    Sounds longer than the model's window are heard in several, evenly spread over the whole, and their
    probabilities averaged.
    """

    auto_model = AutoModelForAudioClassification
    auto_processor: ClassVar[Any] = AutoFeatureExtractor

    @property
    def media(self) -> JsonObject:
        """The rate at which the model wants its samples."""
        return {"sampling_rate": sampling_rate_of(self.processor)}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Hears half a second of silence."""
        self._probabilities(np.zeros(sampling_rate_of(self.processor) // 2, np.float32))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Classifies; returns `labels` and `scores` of all labels."""
        rate = sampling_rate_of(self.processor)
        samples = samples_of(inputs, rate)
        windows = spread(samples, window_samples(self.processor))
        scores = np.mean([self._probabilities(window) for window in windows], axis=0)
        names = self.model.config.id2label
        metadata: JsonObject = {"model": self.name, "duration": round(inputs["seconds"], 3), "windows": len(windows)}
        warnings = []
        if len(windows) > 1:
            metadata["window_seconds"] = len(windows[0]) / rate
            warnings.append(
                f"the model hears {len(windows[0]) / rate:.4g} s at a time: the scores are the mean of "
                f"{len(windows)} windows over the whole {inputs['seconds']:.4g} s"
            )
        return {
            "labels": [names[index] for index in range(len(scores))],
            "scores": [float(score) for score in scores],
            "metadata": metadata,
            "warnings": warnings + option_warnings(options, "audio-classification", unused_by_classification(options)),
        }

    def _probabilities(self, window: Samples) -> NDArray[np.float64]:
        if stop_requested():
            raise CancelledError("classification was stopped")
        encoded = self.processor(window, sampling_rate=sampling_rate_of(self.processor), return_tensors="pt")
        logits = self.model(**self.to_device(encoded)).logits[0].double()
        several = self.model.config.problem_type == "multi_label_classification"
        probabilities = torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)
        values: NDArray[np.float64] = probabilities.cpu().numpy()
        return values


def window_samples(extractor: Any) -> int:
    """Returns how many samples a model hears at once: its feature extractor drops the rest without a word."""
    if getattr(extractor, "n_samples", None):  # Whisper's
        return int(extractor.n_samples)
    rate = int(extractor.sampling_rate)
    if type(extractor).__name__ == "ASTFeatureExtractor":
        # Frames of 25 ms every 10 ms, of which it keeps `max_length`.
        return 400 + (int(extractor.max_length) - 1) * 160
    return int(_WINDOW_SECONDS * rate)
