"""Vision-language: `{"image": …|[…], "prompt": str}` → `{"description": str, "metadata": …}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, MediaField, draws_nothing, texts_of
from src.inference.types import JsonObject


class VlmHandler(BaseModelHandler):
    """Takes a picture, or several, and a question about them."""

    task = "vlm"
    required_fields = ("image", "prompt")
    media: ClassVar[Mapping[str, MediaField]] = {"image": MediaField("image", many=True)}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether nothing is drawn at random: it is unless the caller forbids it or sets a seed."""
        return draws_nothing(options, samples=True)

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the prompt and the pixels; for a server that decodes by itself, a message with PNG files."""
        self.validate_input(data, self.required_fields)
        pictures, prompt = data["image"], data["prompt"]
        if all(isinstance(picture, bytes) for picture in pictures):
            return {"inputs": [{"role": "user", "content": prompt, "images": pictures}], "options": options}
        return {"inputs": {"images": [picture["pixels"] for picture in pictures], "prompt": prompt}, "options": options}

    def validate_input(self, data: Any, required: Any) -> None:
        """Raises `InvalidInputError` unless there is a picture and a text about it."""
        super().validate_input(data, required)
        check_prompt(data["prompt"])
        if isinstance(data["image"], list) and not data["image"]:
            raise InvalidInputError("Invalid input format: field 'image' is an empty list")

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `description` (the first), `descriptions` where several were asked for, `metadata`.

        Of a model that chooses among known answers also `answers` and their `scores`, descending.
        """
        texts = [text.strip() for text in texts_of(result["response"])]
        answer: JsonObject = {"description": texts[0]}
        if len(texts) > 1:
            answer["descriptions"] = texts
        answer |= {name: result[name] for name in ("answers", "scores") if name in result}
        return {**answer, "metadata": result["metadata"]}


def check_prompt(prompt: Any) -> None:
    """Raises `InvalidInputError` unless a prompt is a text with something in it."""
    if not isinstance(prompt, str):
        raise InvalidInputError(
            f"Invalid input format: field 'prompt' must be a text, not {type(prompt).__name__}",
            details={"field": "prompt"},
        )
    if not prompt.strip():
        raise InvalidInputError("Invalid input format: field 'prompt' is empty", details={"field": "prompt"})
