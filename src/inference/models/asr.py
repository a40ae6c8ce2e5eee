"""Speech recognition: `{"audio": …}` → `{"transcription": str, "language"?, "chunks"?, "metadata": …}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, MediaField, draws_nothing
from src.inference.types import JsonObject


class AsrHandler(BaseModelHandler):
    """Takes a recording of speech, and gives its text.

    `chunks` stand where option `return_timestamps` asks for them: `{"text", "timestamp": [start, end]}` in
    seconds, of segments (true) or words ("word").
    """

    task = "asr"
    required_fields = ("audio",)
    media: ClassVar[Mapping[str, MediaField]] = {"audio": MediaField("audio")}

    @classmethod
    def media_wishes(cls, field: str, options: JsonObject, facts: JsonObject) -> JsonObject:
        """Asks for samples at the model's rate."""
        return {"rate": facts.get("sampling_rate")}

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether nothing is drawn at random: it is not unless the caller asks for it."""
        return draws_nothing(options, samples=False)

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the decoded audio."""
        self.validate_input(data, self.required_fields)
        return {"inputs": heard(data["audio"]), "options": options}

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `transcription`, `language` where it is known, `chunks` where asked for, and `metadata`."""
        answer: JsonObject = {"transcription": result["response"]}
        for name in ("language", "chunks"):
            if result.get(name) is not None:
                answer[name] = result[name]
        answer["metadata"] = result["metadata"]
        return answer


def heard(audio: Any) -> JsonObject:
    """Returns decoded audio; raises `InvalidInputError` for what is none, or has not one sample."""
    if not isinstance(audio, dict) or "samples" not in audio:
        raise InvalidInputError("Invalid input format: field 'audio' must be a recording", details={"field": "audio"})
    if not len(audio["samples"]):
        raise InvalidInputError("`data.audio` holds no sound: it is 0.0 s long", details={"field": "audio"})
    return audio
