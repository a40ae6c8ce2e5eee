"""Models that look at pictures and write: pictures or a video, and a prompt, to text."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM
from transformers.video_utils import VideoMetadata

from src.core.errors import InvalidInputError, ModelLoadError
from src.inference.engines.transformers import families
from src.inference.engines.transformers.answer_pieces import Said, followed
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_generation import BatchGenerator, shares
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.generation import Generator, Prompt, as_list, context_tokens
from src.inference.engines.transformers.prompts import Kind, PromptWriter
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.vision_inputs import encode, load_processor
from src.inference.types import JsonObject

_WARM_UP_SIDE = 64
# Questions whose pictures are in memory together.
_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt about pictures or a video (not both).

    `images`: uint8, height x width x 3 each; `video`: uint8, frames x height x width x 3; `video_metadata`: the facts
    of the decoded video (`indices`, `total_frames`, `fps`, `duration`).
    """

    prompt: str
    images: Sequence[NDArray[np.uint8]] = ()
    video: NDArray[np.uint8] | None = None
    video_metadata: Mapping[str, Any] | None = None


class VisionLanguageRunner(Runner):
    """A model that reads pictures and text with its processor and writes text; the base of the tasks that ask it."""

    auto_model = AutoModelForImageTextToText
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Option values in place of the documented ones."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        if not model.can_generate() or getattr(processor, "image_processor", None) is None:
            raise ModelLoadError(f"Model '{name}' ({type(model).__name__}) does not read pictures and write text")
        super().__init__(name, model, processor)
        self.kind = str(model.config.model_type)
        self.writer = PromptWriter(self.kind, processor)
        self.trial = BatchTrial(name, model)

    @classmethod
    def load_processor(cls, path: Path, **kwargs: Any) -> Any:
        """Returns what prepares pictures and text."""
        return load_processor(path, **kwargs)

    @classmethod
    def load_model(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the model, by the Auto class that knows its architecture."""
        wanted = {name: kwargs[name] for name in ("local_files_only", "trust_remote_code") if name in kwargs}
        config = AutoConfig.from_pretrained(path, **wanted)
        if "image-text" in families.families(config.architectures or ()):
            return cls.auto_model.from_pretrained(path, **kwargs)
        return AutoModelForMultimodalLM.from_pretrained(path, **kwargs)

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens and back."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def takes_video(self) -> bool:
        """Whether the model reads videos as such; another one is shown the frames as pictures."""
        return getattr(self.processor, "video_processor", None) is not None and self.writer.token("video") is not None

    def warm_up(self) -> None:
        """Looks at a grey picture and writes a token."""
        grey = np.full((_WARM_UP_SIDE, _WARM_UP_SIDE, 3), 128, dtype=np.uint8)
        # A model with wishes that a grey picture does not meet is warm after its first request.
        with suppress(InvalidInputError):
            self.ask("What is this?", {"max_new_tokens": 1, "min_length": 0, "do_sample": False}, images=[grey])

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Whatever is asked may go together; where the model does not bear it, batches are made smaller."""
        return () if shares(options, self.defaults) else None

    def ask(
        self,
        prompt: str,
        options: JsonObject,
        *,
        images: Sequence[NDArray[np.uint8]] = (),
        video: NDArray[np.uint8] | None = None,
        video_metadata: Mapping[str, Any] | None = None,
    ) -> JsonObject:
        """Returns the answer to a `Question` of these parts."""
        raw: JsonObject = self.answer(Question(prompt, images, video, video_metadata), options)
        return raw

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def answer(
        self, question: Question, options: JsonObject, *, skip_special_tokens: bool = True, said: Said | None = None
    ) -> JsonObject:
        """Returns `response`, `metadata` and `warnings` for a question; `said` is told the response as it grows.

        A model without videos sees the frames as pictures. Raises `InvalidInputError` for pictures or prompts that the
        model cannot take.
        """
        prompt = self.encoded_question(question)
        return self.written(prompt, options, skip_special_tokens=skip_special_tokens, said=said)

    def written(
        self, prompt: Prompt, options: JsonObject, *, skip_special_tokens: bool = True, said: Said | None = None
    ) -> JsonObject:
        """Returns what the model writes on an encoded prompt."""
        extra = followed(self.tokenizer, said, options, skip_special_tokens=skip_special_tokens)
        generator = Generator(self.name, self.model, self.tokenizer, defaults={**self._ends(), **self.defaults})
        return generator.answer(prompt, options, skip_special_tokens=skip_special_tokens, **extra)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def answers(
        self, questions: Sequence[Question], options: JsonObject, *, skip_special_tokens: bool = True
    ) -> list[JsonObject | Exception]:
        """Returns for each question what `answer` returns or raises for it alone, in as few calls as may be."""
        found = list[JsonObject | Exception]()
        for begin in range(0, len(questions), _TOGETHER):
            prompts = [attempted(self.encoded_question, each) for each in questions[begin : begin + _TOGETHER]]
            found += together(
                prompts, lambda good: self.written_together(good, options, skip_special_tokens=skip_special_tokens)
            )
        return found

    def written_together(
        self, prompts: Sequence[Prompt], options: JsonObject, *, skip_special_tokens: bool = True
    ) -> list[JsonObject | Exception]:
        """Returns what the model writes on each of several encoded prompts."""
        generator = BatchGenerator(
            self.name,
            self.model,
            self.tokenizer,
            self.trial,
            defaults={**self._ends(), **self.defaults},
            skip_special_tokens=skip_special_tokens,
        )
        return generator.answers(prompts, [options] * len(prompts))

    def encoded_question(self, question: Question) -> Prompt:
        """Returns the model's inputs for a question."""
        images, video = question.images, question.video
        if video is not None and not self.takes_video:
            images, video = [*images, *video], None
        return self.encoded(question.prompt, images, video, question.video_metadata)

    def _ends(self) -> dict[str, Any]:
        """Returns the ends of an answer that an architecture has beside those of its generation config."""
        if self.kind == "blip":
            return {"eos_token_id": self.model.config.text_config.sep_token_id}
        if self.kind == "got_ocr2":
            ends = as_list(self.model.generation_config.eos_token_id)
            turn = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
            return {"eos_token_id": [*ends, turn]} if turn is not None and turn not in ends else {}
        return {}

    def encoded(
        self,
        prompt: str,
        images: Sequence[NDArray[np.uint8]],
        video: NDArray[np.uint8] | None = None,
        video_metadata: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Returns the model's inputs, its text tokens counted without those of pictures."""
        if len(images) > 1 and not self.writer.several:
            raise InvalidInputError(
                f"model '{self.name}' ({self.kind}) looks at one picture and the request has {len(images)}: "
                "send one picture in each request",
                details={"images": len(images), "most": 1},
            )
        kind: Kind = "image" if video is None else "video"
        text = self.writer.write(prompt, kind, len(images) if video is None else 1)
        media: dict[str, Any] = {"images": [[Image.fromarray(pixels) for pixels in images]]} if images else {}
        if video is not None:
            media = {
                "videos": [[video]],
                "do_sample_frames": False,
                "video_metadata": [[_facts(video, video_metadata)]],
            }
        try:
            inputs = encode(self.kind, self.processor, text, media)
        except ValueError as exc:
            raise InvalidInputError(f"model '{self.name}' cannot take this input: {exc}") from exc
        return self._prompt(self.to_device(inputs), text)

    def _prompt(self, inputs: dict[str, Any], text: str) -> Prompt:
        decoded, start = inputs.get("decoder_input_ids"), self.model.generation_config.decoder_start_token_id
        plain = len(self.tokenizer(self.writer.without_media(text), add_special_tokens=False)["input_ids"])
        if decoded is not None:
            # generate() puts the start token before a decoder's prompt that lacks it.
            offset = int(decoded.shape[1]) + (start is not None and int(decoded[0, 0]) != start)
        elif self.model.config.is_encoder_decoder:
            offset = 1
        else:
            offset = int(inputs["input_ids"].shape[1])
        self._check_context(offset, min(plain, offset))
        # BLIP takes the [SEP] off its prompt before it writes.
        return Prompt(inputs, text_tokens=plain, offset=offset - (self.kind == "blip"))

    def _check_context(self, tokens: int, text_tokens: int) -> None:
        context = context_tokens(self.model.config)
        if context is not None and tokens >= context:
            raise InvalidInputError(
                f"the prompt has {tokens} tokens, {tokens - text_tokens} of them for pictures, and the model's "
                f"context is {context}: send fewer or smaller pictures, or shorten the prompt",
                details={"prompt_tokens": tokens, "media_tokens": tokens - text_tokens, "context_tokens": context},
            )


def _facts(video: Any, metadata: Mapping[str, Any] | None) -> VideoMetadata:
    given, frames = metadata or {}, len(video)
    return VideoMetadata(
        total_num_frames=given.get("total_frames", frames),
        fps=given.get("fps"),
        duration=given.get("duration"),
        height=int(video.shape[1]),
        width=int(video.shape[2]),
        frames_indices=list(given.get("indices", range(frames))),
    )
