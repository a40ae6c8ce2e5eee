"""Video classification: frames to labels with scores (VideoMAE, TimeSformer, ViViT, V-JEPA 2, VideoPrism)."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor

from src.inference.engines.transformers.answer_pieces import told
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_forward import BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated
from src.inference.engines.transformers.frames import described, filled_up
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.types import JsonObject

_LABELS = 5
_NO_EFFECT = (
    "language", "task", "return_timestamps", "pages", "max_length", "max_new_tokens", "min_length", "do_sample",
    "temperature", "top_p", "num_beams", "repetition_penalty", "no_repeat_ngram_size", "num_return_sequences",
    "stop", "seed", "logprobs",
)  # fmt: skip


class VideoClassificationRunner(Runner):
    """A model that tells which of its labels a video shows."""

    auto_model = AutoModelForVideoClassification

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._forward = BatchForward(BatchTrial(name, model), self._seen, lambda logits: [logits])

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the video processor, or the image processor of a model that has no other."""
        try:
            return AutoVideoProcessor.from_pretrained(path, **kwargs)
        except ValueError:
            return AutoImageProcessor.from_pretrained(path, **kwargs)

    @property
    def media(self) -> JsonObject:
        """The number of frames that the model was made for; most take no other."""
        config = self.model.config
        if count := getattr(config, "num_frames", None):
            return {"fixed_frames": int(count)}
        return {"num_frames": int(config.frames_per_clip)}

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Looks at black frames."""
        self._logits(np.zeros((self._least(), 32, 32, 3), np.uint8))

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Videos of as many frames go together."""
        return max(len(inputs["video"]["frames"]), self._least())

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the likeliest labels, the first one as the response; `inputs`: the decoded `video`."""
        video, warnings = filled_up(inputs["video"], self._least())
        raw = self._answer(inputs, video, self._logits(video["frames"]), warnings, options)
        if (pieces := told()) is not None:
            pieces.finish(raw["response"].strip())
        return raw

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Returns the likeliest labels of several videos."""
        filled = [filled_up(each["video"], self._least()) for each in inputs]
        encoded = [attempted(self._encoded, video["frames"]) for video, _ in filled]
        return [
            logits if isinstance(logits, Exception) else self._answer(each, video, logits, warnings, options)
            for each, (video, warnings), logits in zip(
                inputs, filled, together(encoded, self._forward.outputs), strict=True
            )
        ]

    def _answer(
        self, inputs: Any, video: JsonObject, logits: torch.Tensor, warnings: list[str], options: JsonObject
    ) -> JsonObject:
        labels, scores = self._ranked(logits, options.get("top_k") or _LABELS)
        metadata = {"model": self.name, "labels": self.model.config.num_labels}
        answer = {"response": labels[0], "labels": labels, "scores": scores, "frames": described(video)}
        return {**answer, "metadata": metadata, "warnings": warnings + self._unused(inputs, options)}

    def _least(self) -> int:
        return int(self.media.get("fixed_frames") or self.model.config.tubelet_size)

    def _logits(self, frames: Any) -> torch.Tensor:
        return self._seen([self._encoded(frames)])[0]

    def _encoded(self, frames: Any) -> Encoded:
        wants_videos = "Video" in type(self.processor).__name__
        if wants_videos:
            encoded = self.processor([frames], do_sample_frames=False, return_tensors="pt")
        else:
            encoded = self.processor(list(frames), return_tensors="pt")
        return self.to_device(encoded)

    def _seen(self, encodings: Sequence[Encoded]) -> list[torch.Tensor]:
        logits: torch.Tensor = self.model(**collated(encodings)).logits
        return list(logits.float().reshape(len(encodings), -1))

    def _ranked(self, logits: torch.Tensor, count: int) -> tuple[list[str], list[float]]:
        config = self.model.config
        several = config.problem_type == "multi_label_classification"
        scores, places = (logits.sigmoid() if several else logits.softmax(-1)).topk(min(count, len(logits)))
        return [str(config.id2label[place]) for place in places.tolist()], scores.tolist()

    def _unused(self, inputs: Any, options: JsonObject) -> list[str]:
        warnings = option_warnings(options, "video-analysis with a classifier", _NO_EFFECT)
        if inputs.get("prompt"):
            warnings.append("field 'prompt' has no effect: the model tells which of its labels fits, whatever is asked")
        fixed = self.media.get("fixed_frames")
        if fixed and options.get("num_frames") not in (None, fixed):
            warnings.append(f"option 'num_frames' has no effect: the model takes {fixed} frames")
        return warnings
