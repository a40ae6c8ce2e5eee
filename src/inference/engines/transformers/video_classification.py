"""Video classification: frames to labels with scores (VideoMAE, TimeSformer, ViViT, V-JEPA 2, VideoPrism)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor

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

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the likeliest labels, the first one as the response; `inputs`: the decoded `video`."""
        video, warnings = filled_up(inputs["video"], self._least())
        warnings += self._unused(inputs, options)
        labels, scores = self._ranked(self._logits(video["frames"]), options.get("top_k") or _LABELS)
        metadata = {"model": self.name, "labels": self.model.config.num_labels}
        answer = {"response": labels[0], "labels": labels, "scores": scores, "frames": described(video)}
        return {**answer, "metadata": metadata, "warnings": warnings}

    def _least(self) -> int:
        return int(self.media.get("fixed_frames") or self.model.config.tubelet_size)

    def _logits(self, frames: Any) -> torch.Tensor:
        wants_videos = "Video" in type(self.processor).__name__
        if wants_videos:
            encoded = self.processor([frames], do_sample_frames=False, return_tensors="pt")
        else:
            encoded = self.processor(list(frames), return_tensors="pt")
        logits: torch.Tensor = self.model(**self.to_device(encoded)).logits
        return logits.float().flatten()

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
