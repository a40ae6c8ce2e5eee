"""Audio classification: `{"audio": …}` → `{"labels": [str], "scores": [float], "metadata": …}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.inference.models.asr import heard
from src.inference.models.base import BaseModelHandler, MediaField
from src.inference.options import TransformersOptions, default_of
from src.inference.types import JsonObject


class AudioClassificationHandler(BaseModelHandler):
    """Takes a recording and names what it holds, the likeliest first.

    Option `top_k` bounds how many labels are given, documented as 50; 0 gives all that the model has.
    """

    task = "audio-classification"
    required_fields = ("audio",)
    media: ClassVar[Mapping[str, MediaField]] = {"audio": MediaField("audio")}

    @classmethod
    def media_wishes(cls, field: str, options: JsonObject, facts: JsonObject) -> JsonObject:
        """Asks for samples at the model's rate."""
        return {"rate": facts.get("sampling_rate")}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Says that a classifier draws nothing at random."""
        return True

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the decoded audio."""
        self.validate_input(data, self.required_fields)
        return {"inputs": heard(data["audio"]), "options": options}

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `labels` and `scores`, the highest first, and `metadata`."""
        most = options.get("top_k", default_of(TransformersOptions, "top_k")) or None
        ranked = sorted(zip(result["labels"], result["scores"], strict=True), key=lambda pair: -pair[1])[:most]
        return {
            "labels": [label for label, _ in ranked],
            "scores": [score for _, score in ranked],
            "metadata": result["metadata"],
        }
