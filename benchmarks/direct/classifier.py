"""An image classifier as anybody would write it: JPEG → picture → processor → model. The limit and the peers use it."""

import base64
import io
from collections.abc import Sequence
from typing import Any


class Classifier:
    """Classifies base64 texts of JPEG files; call it from one thread at a time.

    `channels_last` is the memory format of the model and of its inputs.
    """

    def __init__(self, path: str, *, channels_last: bool) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._torch = torch
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._processor = AutoImageProcessor.from_pretrained(path, local_files_only=True)
        model = AutoModelForImageClassification.from_pretrained(path, dtype="auto", local_files_only=True)
        self._model = model.eval().to(memory_format=self._format)

    def __call__(self, pictures: Sequence[str]) -> list[dict[str, Any]]:
        """Returns `label` and `score` of the most probable class of each picture."""
        from PIL import Image

        decoded = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]
        pixels = self._processor(decoded, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self._model.dtype).contiguous(memory_format=self._format)
        with self._torch.inference_mode():
            scores, labels = self._model(pixel_values=pixels).logits.float().softmax(-1).max(-1)
        names = self._model.config.id2label
        return [
            {"label": names[label], "score": score}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]
