"""Image classification with any model that the library maps for it."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoProcessor

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.attempts import attempted, together
from src.inference.engines.transformers.generation import option_warnings
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.unused_options import unused_by_classification
from src.inference.types import JsonObject

# Labels of an answer, unless `top_k` says otherwise.
_LABELS = 5
# Pictures that the model sees at once: more gain nothing, and each keeps its activations in memory.
_TOGETHER = 32
# Pixels that are resized at once: of large pictures a copy of a whole batch would be gigabytes.
_PIXELS = 1 << 24
# Processors that keep the sides' ratio make a strip as many times longer than the side that they scale to.
_LONGEST = 200

Encoded = Mapping[str, torch.Tensor]
Part = tuple[Sequence[int], Encoded]
"""The places of some pictures in their batch, and the model's inputs for them."""


class ImageClassificationRunner(Runner):
    """A model that gives a picture a score for each of its labels."""

    auto_model = AutoModelForImageClassification
    auto_processor: ClassVar[Any] = AutoImageProcessor

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        if self.device == "cpu":
            lay_out(model)
        self._labels = self._names()
        # One that works on PIL images takes those best; the others need not make a tensor of them first.
        self._by_tensor = getattr(processor, "backend", None) == "torchvision"

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Any pictures go together: what differs in size is grouped when it is prepared."""
        return ()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def warm_up(self) -> None:
        """Looks at a black picture."""
        size = getattr(self.model.config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else size
        # Where nothing scales pictures, this one may be of a size that the model does not take.
        with suppress(InvalidInputError):
            self._scores([self._picture(np.zeros((height, width, 3), np.uint8))])

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Any, options: JsonObject) -> JsonObject:
        """Returns for each of the `images` its likeliest `labels` with their `scores`."""
        return self._answers([self._pictures(inputs)], options)[0]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run_batch(self, inputs: Sequence[Any], options: JsonObject) -> list[JsonObject | Exception]:
        """Returns for each input what `run` returns or raises for it alone."""
        given = [attempted(self._pictures, each) for each in inputs]
        return together(given, lambda requests: self._answers(requests, options) if requests else [])

    def _names(self) -> list[str]:
        config = self.model.config
        return [str(config.id2label.get(place, f"LABEL_{place}")) for place in range(config.num_labels)]

    def _pictures(self, inputs: Any) -> list[Any]:
        return [self._picture(pixels) for pixels in inputs["images"]]

    def _picture(self, pixels: Any) -> Any:
        """Returns a picture as the processor takes it best; `pixels`: uint8, height x width x 3."""
        height, width, _ = pixels.shape
        if max(height, width) > _LONGEST * min(height, width):
            raise InvalidInputError(
                f"a picture of {width} x {height} pixels is too narrow a strip: one side may be at most {_LONGEST} "
                "times as long as the other; cut out the part to be classified",
                details={"width": width, "height": height},
            )
        if not self._by_tensor:
            return Image.fromarray(pixels)
        # What came with its request's frame is not to be written to, which torch does not like to see.
        owned = pixels if pixels.flags.writeable else pixels.copy()
        return torch.from_numpy(owned).permute(2, 0, 1)

    def _answers(self, requests: Sequence[Sequence[Any]], options: JsonObject) -> list[JsonObject]:
        """Returns the raw answer to each request, a list of pictures."""
        scores = self._scores([picture for pictures in requests for picture in pictures])
        wanted = options.get("top_k", _LABELS) or scores.shape[1]
        ranked = scores.topk(min(wanted, scores.shape[1]))
        found = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        named = ({"labels": [self._labels[place] for place in places], "scores": values} for places, values in found)
        warnings = option_warnings(options, "image-classification", _unused(options))
        return [
            {
                "response": [next(named) for _ in pictures],
                "metadata": {"model": self.name, "labels": len(self._labels)},
                "warnings": list(warnings),
            }
            for pictures in requests
        ]

    def _scores(self, pictures: Sequence[Any]) -> torch.Tensor:
        """Returns probabilities, (pictures, labels): of labels that exclude each other they add up to one."""
        logits = self._logits(pictures)
        alone = self.model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1
        return logits.sigmoid() if alone else logits.softmax(-1)

    def _logits(self, pictures: Sequence[Any]) -> torch.Tensor:
        """Returns float32 logits on the CPU, (pictures, labels), of pictures of any sizes."""
        found = list[torch.Tensor]()
        for some in _slices(pictures, _TOGETHER):
            parts = list(merged(self._parts(some)))
            rows = torch.cat([self._seen(encoded) for _, encoded in parts])
            order = [place for places, _ in parts for place in places]
            found.append(rows if order == sorted(order) else rows[torch.tensor(order).argsort()])
        return found[0] if len(found) == 1 else torch.cat(found)

    def _parts(self, pictures: Sequence[Any]) -> Iterator[Part]:
        """Yields pictures of one size as the model's inputs."""
        sizes = dict[tuple[int, int], list[int]]()
        for place, picture in enumerate(pictures):
            sizes.setdefault(_size(picture), []).append(place)
        for (height, width), places in sizes.items():
            for some in _slices(places, max(1, _PIXELS // (height * width))):
                yield some, self._encoded([pictures[place] for place in some])

    def _encoded(self, pictures: Sequence[Any]) -> Encoded:
        encoded: Encoded = self.to_device(self.processor(pictures, return_tensors="pt"))
        return encoded

    def _seen(self, encoded: Encoded) -> torch.Tensor:
        if stop_requested():
            raise CancelledError("classification was stopped")
        try:
            output = self.model(**encoded)
        except ValueError as exc:
            if getattr(self.processor, "do_resize", True):
                raise
            # Nothing scales the pictures, and a model says of a size that is not its own what it takes.
            raise InvalidInputError(f"model '{self.name}' cannot take a picture of this size: {exc}") from exc
        # PP-LCNet has its logits under the name of what others have before their last layer.
        logits: torch.Tensor = output.logits if "logits" in output else output.last_hidden_state
        return logits.float().cpu()


class PolicyRunner(ImageClassificationRunner):
    """ShieldGemma 2, which tells of each of its policies how likely a picture breaks it."""

    auto_processor = AutoProcessor

    def _names(self) -> list[str]:
        return list(self.processor.policy_definitions)

    def _scores(self, pictures: Sequence[Any]) -> torch.Tensor:
        found = []
        for picture in pictures:
            if stop_requested():
                raise CancelledError("classification was stopped")
            encoded = self.to_device(self.processor(images=[picture], return_tensors="pt"))
            found.append(self.model(**encoded).probabilities[:, 0].float().cpu())
        return torch.stack(found)


def lay_out(model: Any) -> None:
    """Turns a convolutional model's kernels to channels last, in which a CPU computes them faster.

    Measured: 1.1 times in float32 and twice in bfloat16, where kernels are most of the weights. Elsewhere, and where
    kernels are normalised at each call (BiT), nothing is gained or something lost.
    """
    if any(not weight.is_floating_point() for weight in model.parameters()):
        return  # quantized: packed weights tell neither their number nor who does most of the work
    kernels = [module for module in model.modules() if type(module) is nn.Conv2d]
    if 2 * sum(module.weight.numel() for module in kernels) > sum(weight.numel() for weight in model.parameters()):
        for module in kernels:
            if not _is_miscomputed(module):
                module.to(memory_format=torch.channels_last)


def _is_miscomputed(kernel: nn.Conv2d) -> bool:
    """Whether torch 2.15 is wrong about a kernel in channels last: 4 or 8 wide in bfloat16, on processors with AMX."""
    return kernel.weight.dtype is torch.bfloat16 and bool({4, 8} & set(kernel.kernel_size))


def merged(parts: Iterator[Part]) -> Iterator[Part]:
    """Yields parts whose inputs are of one shape as one, so that the model runs once for all of them."""
    alike = dict[Hashable, list[Part]]()
    for places, encoded in parts:
        shape = tuple((name, value.shape[1:]) for name, value in encoded.items())
        alike.setdefault(shape, []).append((places, encoded))
    for group in alike.values():
        first = group[0][1]
        whole = first if len(group) == 1 else {name: torch.cat([each[name] for _, each in group]) for name in first}
        yield [place for places, _ in group for place in places], whole


def _size(picture: Any) -> tuple[int, int]:
    """Returns height and width."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return int(picture.shape[-2]), int(picture.shape[-1])


def _slices(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _unused(options: JsonObject) -> list[str]:
    cut = options.get("segmentation", "auto") != "auto"
    return [*unused_by_classification(options), *(["segmentation"] if cut else [])]
