"""Text generation: `{"inputs": str | messages}` → `{"generated_text": str, "metadata": …}`."""

from typing import Any

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, draws_nothing, texts_of
from src.inference.types import JsonObject


class TextGenerationHandler(BaseModelHandler):
    """Takes a prompt, or a conversation as `[{"role": str, "content": str}, …]`."""

    task = "text-generation"
    required_fields = ("inputs",)

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether nothing is drawn at random: it is unless the caller forbids it or sets a seed."""
        return draws_nothing(options, samples=True)

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the prompt or the messages, checked."""
        self.validate_input(data, self.required_fields)
        return {"inputs": data["inputs"], "options": options}

    def validate_input(self, data: Any, required: Any) -> None:
        """Raises `InvalidInputError` unless `inputs` is a text or a list of messages."""
        super().validate_input(data, required)
        inputs = data["inputs"]
        if isinstance(inputs, str):
            if not inputs:
                raise InvalidInputError("Invalid input format: field 'inputs' is empty")
        elif isinstance(inputs, list) and inputs:
            for position, message in enumerate(inputs):
                _check_message(position, message)
        else:
            raise InvalidInputError(
                "Invalid input format: field 'inputs' must be a text or a list of messages "
                f'[{{"role": "user", "content": "…"}}], not {type(inputs).__name__}'
            )

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `generated_text` (the first), `generated_texts` where several were asked for, `metadata`."""
        texts = texts_of(result["response"])
        answer: JsonObject = {"generated_text": texts[0]}
        if len(texts) > 1:
            answer["generated_texts"] = texts
        answer["metadata"] = result["metadata"]
        return answer


def _check_message(position: int, message: Any) -> None:
    if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
        raise InvalidInputError(
            f"Invalid input format: message {position} of field 'inputs' needs the texts 'role' and 'content'"
        )
