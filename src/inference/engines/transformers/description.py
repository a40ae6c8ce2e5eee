"""Answers about pictures, by models that look and write."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.inference.engines.transformers.florence import florence_task, parsed
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.vision_language import VisionLanguageRunner
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps", "num_frames", "fps", "pages")
# Donut's own way of asking, where it was made for questions.
_QUESTION = "<s_docvqa>"


class DescriptionRunner(VisionLanguageRunner):
    """A model that is shown pictures and asked about them."""

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Answers; `inputs`: the `prompt` and the pixels of the `images`."""
        raw = self._answer(inputs["prompt"], inputs["images"], options)
        raw["warnings"] += option_warnings(options, "vlm", _NO_EFFECT)
        return raw

    def _answer(self, prompt: str, images: Sequence[NDArray[np.uint8]], options: JsonObject) -> JsonObject:
        if self.kind == "florence2" and (task := florence_task(self.processor, prompt)):
            return self._florence(task, prompt, images, options)
        raw: JsonObject = self.ask(self._question(prompt), options, images=images)
        if self.kind == "kosmos-2":
            self._ground(raw)
        return raw

    def _question(self, prompt: str) -> str:
        if self.kind != "vision-encoder-decoder" or prompt.startswith("<"):
            return prompt
        asks = _QUESTION in self.tokenizer.get_vocab()
        return f"{_QUESTION}<s_question>{prompt}</s_question><s_answer>" if asks else prompt

    def _florence(self, task: str, prompt: str, images: Sequence[NDArray[np.uint8]], options: JsonObject) -> JsonObject:
        """Answers with what stands behind Florence-2's task tokens: a text, or regions as `metadata.parsed`."""
        raw: JsonObject = self.ask(prompt, options, images=images, skip_special_tokens=False)
        texts = raw["response"] if isinstance(raw["response"], list) else [raw["response"]]
        height, width = images[0].shape[:2]
        found = [parsed(self.processor, task, text, (width, height)) for text in texts]
        raw["response"] = found[0].text if len(found) == 1 else [each.text for each in found]
        if found[0].regions is not None:
            raw["metadata"]["parsed"] = found[0].regions
        return raw

    def _ground(self, raw: JsonObject) -> None:
        """Takes Kosmos-2's marks out of its text: phrases with where they are in the picture, 0 to 1 both ways."""
        texts = raw["response"] if isinstance(raw["response"], list) else [raw["response"]]
        read = [self.processor.post_process_generation(text) for text in texts]
        raw["response"] = read[0][0] if len(read) == 1 else [caption for caption, _ in read]
        raw["metadata"]["entities"] = [
            {"text": text, "span": list(span), "boxes": [list(box) for box in boxes]}
            for text, span, boxes in read[0][1]
        ]
