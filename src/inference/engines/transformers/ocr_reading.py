"""Reading text off pictures: what all OCR runners share."""

from collections.abc import Hashable, Sequence
from typing import Any

from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.batch_generation import shares
from src.inference.engines.transformers.generation import EXACT, option_warnings
from src.inference.engines.transformers.recognition import Pixels
from src.inference.engines.transformers.runner import Runner
from src.inference.types import JsonObject

_NO_EFFECT = ("language", "task", "return_timestamps", "num_frames", "fps", "pages")
_SAMPLING = ("temperature", "top_p", "top_k")
Asked = tuple[Sequence[Pixels], str | None]
"""The pictures of a request, and what it asks with; None: the model's own words."""


class ReadingRunner(Runner):
    """A model that reads text off pictures."""

    unused: Sequence[str] = ()
    takes_prompt = True

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Returns for each picture `text`, `lines` or `fields` where there are any, and `metadata`."""
        raise NotImplementedError

    def read_together(self, requests: Sequence[Asked], options: JsonObject) -> list[list[JsonObject] | Exception]:
        """Returns what `read` returns or raises for the pictures and the prompt of each request."""
        return [attempted(self.read, images, prompt, options) for images, prompt in requests]

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Whatever is read may go together."""
        return () if shares(_for_one_answer(options), EXACT) else None

    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Reads; `inputs`: the pixels of the `images` and the `prompt`, None for the model's own."""
        read = self.read(inputs["images"], self._words_of(inputs), _for_one_answer(options))
        return self._finished(inputs, read, options)

    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Reads the pictures of several requests together."""
        asked = [(each["images"], self._words_of(each)) for each in inputs]
        return [
            read if isinstance(read, Exception) else attempted(self._finished, each, read, options)
            for each, read in zip(inputs, self.read_together(asked, _for_one_answer(options)), strict=True)
        ]

    def _words_of(self, inputs: Any) -> str | None:
        return inputs["prompt"] if self.takes_prompt else None

    def _finished(self, inputs: Any, pages: list[JsonObject], options: JsonObject) -> JsonObject:
        warnings = option_warnings(options, "ocr", self._unused(options))
        if inputs["prompt"] and not self.takes_prompt:
            warnings.append("field 'prompt' has no effect: this model reads all text and takes no words")
        warnings += [warning for page in pages for warning in page.pop("warnings", [])]
        metadata = _together(self.name, [page.pop("metadata") for page in pages])
        if metadata["finish_reason"] == "length":
            warnings.append("the text was cut: raise max_new_tokens (and max_length) to read on")
        return {"response": pages, "metadata": metadata, "warnings": list(dict.fromkeys(warnings))}

    def _unused(self, options: JsonObject) -> list[str]:
        names = [*_NO_EFFECT, *self.unused]
        if options.get("num_return_sequences", 1) > 1:
            names.append("num_return_sequences")
        if not options.get("do_sample", EXACT["do_sample"]):
            names += _SAMPLING
        return list(dict.fromkeys(names))


def _for_one_answer(options: JsonObject) -> JsonObject:
    return {name: value for name, value in options.items() if name != "num_return_sequences"}


def _together(name: str, found: Sequence[JsonObject]) -> JsonObject:
    """Returns the metadata of several answers as one; log-probabilities one picture after the other."""
    metadata: JsonObject = {
        "model": name,
        "tokens": sum(each["tokens"] for each in found),
        "finish_reason": "length" if any(each["finish_reason"] == "length" for each in found) else "stop",
        "prompt_tokens": sum(each["prompt_tokens"] for each in found),
    }
    if any("logprobs" in each for each in found):
        metadata["logprobs"] = [value for each in found for value in each.get("logprobs", [])]
    return metadata
