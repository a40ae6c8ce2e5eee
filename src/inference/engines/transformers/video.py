"""Video analysis with models that look and write: a question about a video, answered in words."""

from typing import Any

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.frames import described, filled_up
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.vision_language import VisionLanguageRunner
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
        prompt = self._prompt_of(inputs["prompt"])
        own = getattr(self.processor, "video_processor", None) if self.takes_video else None
        video, warnings = filled_up(inputs["video"], int(getattr(own, "temporal_patch_size", None) or 1))
        raw = self.ask(prompt, options, video=video["frames"], video_metadata=video)
        raw["warnings"] += [*warnings, *option_warnings(options, "video-analysis", _NO_EFFECT)]
        return {**raw, "frames": described(video)}

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
