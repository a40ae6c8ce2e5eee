"""Questions about pictures, by models that were made for nothing else: ViLT chooses an answer, BLIP writes it."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForVisualQuestionAnswering, BlipForQuestionAnswering

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.answer_pieces import told
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.batch_forward import BatchForward
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import Encoded, collated
from src.inference.engines.transformers.description import DescriptionRunner
from src.inference.engines.transformers.generation import Prompt, option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.unused_options import unused_by_classification
from src.inference.types import JsonObject

_ANSWERS = 5


class QuestionRunner(Runner):
    """Loads a model for visual questions as the runner of its architecture."""

    @classmethod
    def load(cls, name: str, path: Path, **kwargs: Any) -> Self:
        """Loads a folder."""
        if cls is not QuestionRunner:
            return super().load(name, path, **kwargs)
        config = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=kwargs.get("trust_remote_code", False)
        )
        kind: type[QuestionRunner] = BlipQuestionRunner if config.model_type == "blip" else ChoiceRunner
        runner: Self = kind.load(name, path, **kwargs)  # type: ignore[assignment]
        return runner


class ChoiceRunner(QuestionRunner):
    """A model that chooses among the answers that it knows (ViLT)."""

    auto_model = AutoModelForVisualQuestionAnswering

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._forward = BatchForward(BatchTrial(name, model), self._seen, lambda logits: [logits])

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Whatever is asked may go together."""
        return ()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns the likeliest answer, and the likeliest few as `answers` with `scores`; `top_k` says how many."""
        encoded = self._encoded(inputs["prompt"], inputs["images"])
        raw = self._answer(self._seen([encoded])[0], options)
        if (pieces := told()) is not None:
            pieces.finish(raw["response"].strip())
        return raw

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Returns the likeliest answers to several questions."""
        encoded = [attempted(self._encoded, each["prompt"], each["images"]) for each in inputs]
        return [
            logits if isinstance(logits, Exception) else self._answer(logits, options)
            for logits in together(encoded, self._forward.outputs)
        ]

    def _seen(self, encodings: Sequence[Encoded]) -> list[torch.Tensor]:
        return list(self.model(**collated(encodings, pad_token=self._pad_token)).logits)

    @property
    def _pad_token(self) -> int:
        return int(self.processor.tokenizer.pad_token_id or 0)

    def _answer(self, logits: torch.Tensor, options: JsonObject) -> JsonObject:
        # Its answers do not exclude each other: each has a probability of its own.
        scores = logits.float().sigmoid()
        found = scores.topk(min(options.get("top_k") or _ANSWERS, scores.shape[0]))
        answers = [self.model.config.id2label[index] for index in found.indices.tolist()]
        warnings = option_warnings(options, "this model", unused_by_classification(options))
        return {
            "response": answers[0],
            "answers": answers,
            "scores": found.values.tolist(),
            "metadata": {"model": self.name},
            "warnings": warnings,
        }

    def _encoded(self, prompt: str, images: Any) -> Encoded:
        if len(images) > 1:
            raise InvalidInputError(
                f"model '{self.name}' looks at one picture and the request has {len(images)}: "
                "send one picture in each request",
                details={"images": len(images), "most": 1},
            )
        encoded = self.processor(Image.fromarray(images[0]), prompt, return_tensors="pt")
        tokens, most = int(encoded["input_ids"].shape[1]), int(self.model.config.max_position_embeddings)
        if tokens > most:
            raise InvalidInputError(
                f"the prompt has {tokens} tokens and the model reads {most}: shorten the prompt",
                details={"prompt_tokens": tokens, "context_tokens": most},
            )
        return self.to_device(encoded)


class BlipQuestionRunner(DescriptionRunner, QuestionRunner):
    """BLIP made for questions: its encoder reads the question, its decoder writes the answer."""

    @classmethod
    def load_model(cls, path: Path, **kwargs: Any) -> Any:
        """Returns the model."""
        return BlipForQuestionAnswering.from_pretrained(path, **kwargs)

    def _prompt(self, inputs: dict[str, Any], text: str) -> Prompt:
        return Prompt(inputs, text_tokens=int(inputs["input_ids"].shape[1]), offset=1)
