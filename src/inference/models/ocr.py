"""Reading text off pictures: `{"image": …|[…], "prompt"?: str}` → `{"text": str, "lines"?: […], "metadata": …}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, MediaField, draws_nothing
from src.inference.models.vlm import check_prompt
from src.inference.types import JsonObject

BETWEEN_PICTURES = "\n\n"
"""What stands between the texts of several pictures in `text`."""


class OcrHandler(BaseModelHandler):
    """Takes a picture, or several, and, for a model that is asked, the words to ask it with."""

    task = "ocr"
    required_fields = ("image",)
    media: ClassVar[Mapping[str, MediaField]] = {"image": MediaField("image", many=True)}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether nothing is drawn at random: it is not unless the caller asks for it."""
        return draws_nothing(options, samples=False)

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the pixels and the prompt, None where there is none."""
        self.validate_input(data, self.required_fields)
        images = [picture["pixels"] for picture in data["image"]]
        return {"inputs": {"images": images, "prompt": data.get("prompt")}, "options": options}

    def validate_input(self, data: Any, required: Any) -> None:
        """Raises `InvalidInputError` unless there is a picture and the prompt, if any, is a text."""
        super().validate_input(data, required)
        if data.get("prompt") is not None:
            check_prompt(data["prompt"])
        if isinstance(data["image"], list) and not data["image"]:
            raise InvalidInputError("Invalid input format: field 'image' is an empty list")

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `text` and, where known, `lines`, `words` (`text`, `box`, `score`, `image`), `fields`; `metadata`.

        `box`: left, top, right, bottom in pixels of the picture. Of several pictures `texts` holds each one's
        text, `text` all of them with a blank line between, and a line names its picture by number.
        """
        pages = result["response"]
        texts = [page["text"] for page in pages]
        answer: JsonObject = {"text": BETWEEN_PICTURES.join(texts)}
        if len(pages) > 1:
            answer["texts"] = texts
        for name in ("lines", "words"):
            if any(name in page for page in pages):
                answer[name] = [
                    {**piece, **({"image": number} if len(pages) > 1 else {})}
                    for number, page in enumerate(pages)
                    for piece in page.get(name, ())
                ]
        if any("fields" in page for page in pages):
            fields = [page.get("fields", {}) for page in pages]
            answer["fields"] = fields if len(pages) > 1 else fields[0]
        return {**answer, "metadata": result["metadata"]}
