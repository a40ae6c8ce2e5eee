"""Answers about pictures, by models that look and write."""

from collections.abc import Sequence
from typing import Any

from src.inference.engines.transformers.answer_pieces import told
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.florence import florence_task, parsed
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.vision_language import Question, VisionLanguageRunner
from src.inference.models.base import texts_of
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps", "num_frames", "fps", "pages")
# Donut's own way of asking, where it was made for questions.
_QUESTION = "<s_docvqa>"


class DescriptionRunner(VisionLanguageRunner):
    """A model that is shown pictures and asked about them."""

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Answers; `inputs`: the `prompt` and the pixels of the `images`."""
        marked, pieces = self._is_marked(inputs), told()
        said = pieces.upto if pieces is not None and not marked and self.kind != "kosmos-2" else None
        raw = self.answer(self._question(inputs), options, skip_special_tokens=not marked, said=said)
        raw = self._finished(inputs, raw, options)
        if pieces is not None:
            pieces.finish(texts_of(raw["response"])[0].strip())
        return raw

    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Answers several questions together."""
        found: dict[int, JsonObject | Exception] = {}
        for marked in (False, True):
            places = [place for place, each in enumerate(inputs) if self._is_marked(each) == marked]
            questions = [self._question(inputs[place]) for place in places]
            raws = self.answers(questions, options, skip_special_tokens=not marked)
            for place, raw in zip(places, raws, strict=True):
                alone = isinstance(raw, Exception)
                found[place] = raw if alone else attempted(self._finished, inputs[place], raw, options)
        return [found[place] for place in range(len(inputs))]

    def _finished(self, inputs: Any, raw: JsonObject, options: JsonObject) -> JsonObject:
        if self._is_marked(inputs):
            self._parse(raw, inputs)
        if self.kind == "kosmos-2":
            self._ground(raw)
        raw["warnings"] += option_warnings(options, "vlm", _NO_EFFECT)
        return raw

    def _is_marked(self, inputs: Any) -> bool:
        """Whether the answer is to one of Florence-2's task tokens: its special tokens say where things are."""
        return self.kind == "florence2" and florence_task(self.processor, inputs["prompt"]) is not None

    def _question(self, inputs: Any) -> Question:
        return Question(self._prompted(inputs["prompt"]), inputs["images"])

    def _prompted(self, prompt: str) -> str:
        if self.kind != "vision-encoder-decoder" or prompt.startswith("<"):
            return prompt
        asks = _QUESTION in self.tokenizer.get_vocab()
        return f"{_QUESTION}<s_question>{prompt}</s_question><s_answer>" if asks else prompt

    def _parse(self, raw: JsonObject, inputs: Any) -> None:
        """Takes what stands behind Florence-2's task tokens: a text, or regions as `metadata.parsed`."""
        task = str(florence_task(self.processor, inputs["prompt"]))
        height, width = inputs["images"][0].shape[:2]
        found = [parsed(self.processor, task, text, (width, height)) for text in texts_of(raw["response"])]
        raw["response"] = found[0].text if len(found) == 1 else [each.text for each in found]
        if found[0].regions is not None:
            raw["metadata"]["parsed"] = found[0].regions

    def _ground(self, raw: JsonObject) -> None:
        """Takes Kosmos-2's marks out of its text: phrases with where they are in the picture, 0 to 1 both ways."""
        read = [self.processor.post_process_generation(text) for text in texts_of(raw["response"])]
        raw["response"] = read[0][0] if len(read) == 1 else [caption for caption, _ in read]
        raw["metadata"]["entities"] = [
            {"text": text, "span": list(span), "boxes": [list(box) for box in boxes]}
            for text, span, boxes in read[0][1]
        ]
