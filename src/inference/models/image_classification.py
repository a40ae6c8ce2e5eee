"""Image classification: `{"image": …|[…]}` → `{"labels": [str], "scores": [float], "metadata": …}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, MediaField
from src.inference.types import JsonObject


class ImageClassificationHandler(BaseModelHandler):
    """Takes a picture, or several, and names what each shows, the likeliest first.

    Option `top_k` bounds how many labels are given: 5 unless the request says otherwise, 0 gives all that there are.
    """

    task = "image-classification"
    required_fields = ("image",)
    media: ClassVar[Mapping[str, MediaField]] = {"image": MediaField("image", many=True)}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Says that a classifier draws nothing at random."""
        return True

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the pixels of each picture."""
        self.validate_input(data, self.required_fields)
        return {"inputs": {"images": [picture["pixels"] for picture in data["image"]]}, "options": options}

    def validate_input(self, data: Any, required: Any) -> None:
        """Raises `InvalidInputError` unless there is a picture."""
        super().validate_input(data, required)
        if isinstance(data["image"], list) and not data["image"]:
            raise InvalidInputError("Invalid input format: field 'image' is an empty list")

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `labels` and `scores`, the highest first, and `metadata`.

        Of several pictures they are the first one's; `images` has them for each.
        """
        pictures = result["response"]
        answer: JsonObject = dict(pictures[0])
        if len(pictures) > 1:
            answer["images"] = pictures
        return {**answer, "metadata": result["metadata"]}
