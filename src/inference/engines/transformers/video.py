"""Video analysis with models that look and write: a question about a video, answered in words."""

from collections.abc import Sequence
from typing import Any

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.answer_pieces import told
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.frames import described, filled_up
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.vision_language import Question, VisionLanguageRunner
from src.inference.models.base import texts_of
from src.inference.types import JsonObject

# Of a model that likes several frames of each second: more would be thousands of tokens.
_MOST = 32
_NO_EFFECT = ("language", "task", "return_timestamps", "pages")


class VideoRunner(VisionLanguageRunner):
    """A model that is shown a video, or the frames of one as pictures, and asked about it."""

    @property
    def media(self) -> JsonObject:
        """How many frames the model's own processor would take; nothing where that does not say."""
        own = getattr(self.processor, "video_processor", None)
        count, rate = getattr(own, "num_frames", None), getattr(own, "fps", None)
        if count:
            return {"num_frames": min(int(count), _MOST)}
        if rate:
            most = getattr(own, "max_frames", None) or _MOST
            return {"fps": float(rate), "num_frames": min(int(most), _MOST)}
        return {}

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Answers; `inputs`: the `prompt` and the decoded `video`."""
        question, warnings = self._question(inputs)
        pieces = told()
        raw = self.answer(question, options, said=pieces and pieces.upto)
        if pieces is not None:
            pieces.finish(texts_of(raw["response"])[0].strip())
        return _finished(raw, question, warnings, options)

    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Answers several questions together."""
        asked = [attempted(self._question, each) for each in inputs]
        raws = together(asked, lambda good: self.answers([question for question, _ in good], options))
        return [
            raw if isinstance(one, Exception) or isinstance(raw, Exception) else _finished(raw, *one, options)
            for one, raw in zip(asked, raws, strict=True)
        ]

    def _question(self, inputs: Any) -> tuple[Question, list[str]]:
        """Returns what the model is asked, and what there is to say about the video."""
        prompt = self._prompt_of(inputs["prompt"])
        own = getattr(self.processor, "video_processor", None) if self.takes_video else None
        video, warnings = filled_up(inputs["video"], int(getattr(own, "temporal_patch_size", None) or 1))
        return Question(prompt, video=video["frames"], video_metadata=video), warnings

    def _prompt_of(self, prompt: str | None) -> str:
        """Returns the prompt; raises `InvalidInputError` without one, or where the model sees but one picture."""
        if prompt is None or not prompt.strip():
            raise InvalidInputError(
                "Invalid input format: missing field 'prompt' in data: this model is asked about the video in words",
                details={"missing_fields": ["prompt"], "given_fields": ["video"]},
            )
        if not self.takes_video and not self.writer.several:
            raise InvalidInputError(
                f"model '{self.name}' ({self.kind}) looks at one picture at a time, so it cannot see what happens in a "
                "video: take a model made for videos or for several pictures",
            )
        return prompt


def _finished(raw: JsonObject, question: Question, warnings: list[str], options: JsonObject) -> JsonObject:
    raw["warnings"] += [*warnings, *option_warnings(options, "video-analysis", _NO_EFFECT)]
    return {**raw, "frames": described(dict(question.video_metadata or {}))}
