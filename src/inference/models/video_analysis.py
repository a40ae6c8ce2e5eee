"""Video analysis: `{"video": …, "prompt": str}` → `{"analysis": str, "frames": …, "metadata": …}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, MediaField, draws_nothing, texts_of
from src.inference.types import JsonObject


class VideoAnalysisHandler(BaseModelHandler):
    """Takes a video and, for a model that talks, a question about it."""

    task = "video-analysis"
    required_fields = ("video",)
    media: ClassVar[Mapping[str, MediaField]] = {"video": MediaField("video")}

    @classmethod
    def media_wishes(cls, field: str, options: JsonObject, facts: JsonObject) -> JsonObject:
        """Returns how many frames, or how many of each second: as asked for, else as the model likes best.

        `facts`: `num_frames` and `fps` are the model's own; with `fixed_frames` it takes no other number.
        """
        asked = {name: options[name] for name in ("num_frames", "fps") if options.get(name)}
        if facts.get("fixed_frames"):
            return {**asked, "num_frames": facts["fixed_frames"]}
        return asked or {name: facts[name] for name in ("num_frames", "fps") if facts.get(name)}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether nothing is drawn at random: it is unless the caller forbids it or sets a seed."""
        return draws_nothing(options, samples=True)

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the prompt, None where there is none, beside the decoded video."""
        self.validate_input(data, self.required_fields)
        return {"inputs": {"video": data["video"], "prompt": data.get("prompt")}, "options": options}

    def validate_input(self, data: Any, required: Any) -> None:
        """Raises `InvalidInputError` unless there is a video and the prompt, if any, is a text.

        Whether there must be a prompt, the model knows.
        """
        super().validate_input(data, required)
        prompt = data.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise InvalidInputError(
                f"Invalid input format: field 'prompt' must be a text, not {type(prompt).__name__}",
                details={"field": "prompt"},
            )

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `analysis`, the `frames` that the model saw, `metadata`.

        Of a classifier also `labels` and `scores`, descending; of several sequences all of them as `analyses`.
        """
        texts = [text.strip() for text in texts_of(result["response"])]
        answer: JsonObject = {"analysis": texts[0]}
        if len(texts) > 1:
            answer["analyses"] = texts
        answer |= {name: result[name] for name in ("labels", "scores") if name in result}
        return {**answer, "frames": result["frames"], "metadata": result["metadata"]}
