"""Audio classification with any model that the library maps for it."""

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from src.core.errors import CancelledError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.batch_forward import LENGTHS, BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.sound_lengths import SoundLengths
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

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        trial = BatchTrial(name, model)
        self._lengths = SoundLengths(trial, LENGTHS, self._encoded, sampling_rate_of(processor))
        self._forward = BatchForward(trial, self._logits, lambda logits: [logits], self._lengths.example)

    @property
    def media(self) -> JsonObject:
        """The rate at which the model wants its samples."""
        return {"sampling_rate": sampling_rate_of(self.processor)}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Hears half a second of silence."""
        self._probabilities(np.zeros(sampling_rate_of(self.processor) // 2, np.float32))

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Sounds of one window go together, those of one length alone where the model does not bear others."""
        length = len(inputs["samples"])
        if length > window_samples(self.processor):
            return None
        return length if self._lengths.matter else 0

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Classifies; returns `labels` and `scores` of all labels."""
        windows = self._windows(inputs)
        return self._answer(inputs, windows, [self._probabilities(window) for window in windows], options)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Classifies several sounds together."""
        heard = [attempted(self._windows, each) for each in inputs]
        windows = [window for each in heard if not isinstance(each, Exception) for window in each]
        logits = self._forward.outputs([self._encoded(window) for window in windows])
        scores = iter([self._scores(each) for each in logits])
        return [
            each if isinstance(each, Exception) else self._answer(sound, each, [next(scores) for _ in each], options)
            for sound, each in zip(inputs, heard, strict=True)
        ]

    def _windows(self, inputs: Any) -> list[Samples]:
        return spread(samples_of(inputs, sampling_rate_of(self.processor)), window_samples(self.processor))

    def _answer(
        self, inputs: Any, windows: Sequence[Samples], scores: Sequence[NDArray[np.float64]], options: JsonObject
    ) -> JsonObject:
        """Returns the mean of what was heard in the windows of a sound."""
        rate, mean = sampling_rate_of(self.processor), np.mean(scores, axis=0)
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
            "labels": [names[index] for index in range(len(mean))],
            "scores": [float(score) for score in mean],
            "metadata": metadata,
            "warnings": warnings + option_warnings(options, "audio-classification", unused_by_classification(options)),
        }

    def _probabilities(self, window: Samples) -> NDArray[np.float64]:
        if stop_requested():
            raise CancelledError("classification was stopped")
        return self._scores(self._logits([self._encoded(window)])[0])

    def _encoded(self, window: Samples) -> Encoded:
        encoded = self.processor(window, sampling_rate=sampling_rate_of(self.processor), return_tensors="pt")
        return self.to_device(encoded)

    def _logits(self, encodings: Sequence[Encoded]) -> Sequence[torch.Tensor]:
        inputs = collated(encodings)
        return list(self.model(**inputs).logits)

    def _scores(self, logits: torch.Tensor) -> NDArray[np.float64]:
        several = self.model.config.problem_type == "multi_label_classification"
        logits = logits.double()
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
